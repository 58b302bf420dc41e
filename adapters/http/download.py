"""Brings a source from an `http(s)` URL to local disk: guarded, resumed where possible, never interpreted."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from adapters.http.netguard import NetGuard, Purpose
from adapters.http.part_file import PartFile
from adapters.http.session import guarded_session
from adapters.http.target import BadUrl, Target, join_target
from server.ports.fetch import Downloaded, DownloadError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FLUSH_BYTES = 1024 * 1024
_FLUSH_SEC = 0.5
# A broken connection costs what aiohttp holds unread, up to twice this; the resumed request brings it again.
_READ_BUFFER = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)")

# One text for blocked, refused, unknown and unreachable: nobody shall map our network by it (design section 13).
_UNREACHABLE = "could not fetch input URL"
_TIMED_OUT = "timed out fetching input URL"


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """`max_bytes` caps the source, `total_sec` all tries together.

    A try must connect within `connect_sec`, answer within `answer_sec`, and send `min_bytes_per_sec` on average
    over each `rate_window_sec`. `disk_reserve` times the declared size must be free.
    """

    max_bytes: int = 2 * 1024**3
    total_sec: float = 6 * 3600.0
    connect_sec: float = 10.0
    answer_sec: float = 30.0
    min_bytes_per_sec: int = 1024
    rate_window_sec: float = 30.0
    max_redirects: int = 3
    disk_reserve: float = 1.2


class HttpSourceFetcher:
    """The SourceFetcher port over aiohttp. One try more than `backoff_sec` has entries (VC-73, B-65)."""

    def __init__(
        self,
        guard: NetGuard,
        *,
        limits: FetchLimits | None = None,
        backoff_sec: Sequence[float] = (0.5, 1.0, 2.0),
        tls: ssl.SSLContext | None = None,
        user_agent: str = "BaxCloud-VideoConverter/1.0",
    ) -> None:
        self._guard = guard
        self._limits = limits or FetchLimits()
        self._backoff = tuple(backoff_sec)
        self._tls = tls
        self._user_agent = user_agent

    def check_url(self, url: str, *, field: str) -> None:
        self._guard.check_url(url, Purpose.INPUT, field=field)

    async def fetch(
        self, url: str, destination: Path, *, on_progress: Callable[[int, int | None], None]
    ) -> Downloaded:
        part = destination.with_name(destination.name + ".part")
        session = guarded_session(
            self._guard,
            Purpose.INPUT,
            connect_timeout_sec=self._limits.connect_sec,
            tls=self._tls,
            read_buffer=_READ_BUFFER,
        )
        session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
        try:
            async with session, PartFile(part) as file:
                transfer = _Transfer(url, self._guard, session, file, self._limits, on_progress)
                await self._try_all(transfer)
            part.replace(destination)
        finally:
            part.unlink(missing_ok=True)
        return Downloaded(destination, transfer.received)

    async def _try_all(self, transfer: _Transfer) -> None:
        fault = _Fault(_UNREACHABLE)
        retries = 0
        try:
            async with asyncio.timeout(self._limits.total_sec):
                for pause in (None, *self._backoff):
                    if pause is not None:
                        await asyncio.sleep(pause)
                        retries += 1
                    try:
                        return await transfer.attempt()
                    except _Fault as error:
                        fault = error
        except TimeoutError:
            fault = _Fault(_TIMED_OUT, timed_out=True)
        # `from None`: causes carry the URL, and with it credentials, into tracebacks.
        raise DownloadError(f"{fault} after {retries} retries", timed_out=fault.timed_out) from None


class _Fault(Exception):
    """One try failed; another may succeed."""

    def __init__(self, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


@contextmanager
def _as_fault() -> Iterator[None]:
    """Faults of the network, told from those of the local disk by where they happen: both are OSError."""
    try:
        yield
    except (aiohttp.ClientError, HttpProcessingError, BadUrl):
        raise _Fault(_UNREACHABLE) from None
    except TimeoutError:
        raise _Fault(_TIMED_OUT, timed_out=True) from None
    except OSError:
        raise _Fault(_UNREACHABLE) from None


class _Transfer:
    """One source over all tries: what is on disk, and the validator that says whether it may be continued."""

    def __init__(
        self,
        url: str,
        guard: NetGuard,
        session: aiohttp.ClientSession,
        file: PartFile,
        limits: FetchLimits,
        on_progress: Callable[[int, int | None], None],
    ) -> None:
        self._url = url
        self._guard = guard
        self._session = session
        self._file = file
        self._limits = limits
        self._on_progress = on_progress
        self.received = 0
        self._total: int | None = None
        self._validator: str | None = None

    async def attempt(self) -> None:
        """One request, or one per redirect. Raise _Fault, DownloadError (too large) or OSError (disk)."""
        if self._validator is None:
            await self._restart()
        response = await self._request()
        try:
            if await self._begin(response):
                await self._read(response.content)
        finally:
            response.close()

    async def _request(self) -> aiohttp.ClientResponse:
        headers = {"Accept": "*/*"}
        if self.received and self._validator:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self._validator}
        with _as_fault():
            target = self._guard.parse(self._url, Purpose.INPUT)
            for _ in range(self._limits.max_redirects + 1):
                async with asyncio.timeout(self._limits.answer_sec):
                    response = await self._session.get(
                        URL(target.url, encoded=True), headers=headers, allow_redirects=False
                    )
                if response.status not in _REDIRECTS:
                    return response
                response.close()
                target = self._follow(target, response)
        raise _Fault(_UNREACHABLE)

    def _follow(self, target: Target, response: aiohttp.ClientResponse) -> Target:
        """The next hop. Nothing secret travels along: requests carry neither cookies nor Authorization."""
        location = response.headers.get("Location")
        if location is None:
            raise _Fault(f"HTTP {response.status} fetching input URL")
        following = self._guard.admit(join_target(target, location), Purpose.INPUT)
        if target.scheme == "https" and following.scheme != "https":
            raise _Fault(_UNREACHABLE)
        return following

    async def _begin(self, response: aiohttp.ClientResponse) -> bool:
        """Takes the head of the answer in; False if everything is on disk already."""
        asked_range = bool(self.received)
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if response.status == 200:
            await self._restart()
            self._total = response.content_length
            self._validator = _validator(response)
        elif response.status == 416 and asked_range:
            if total == self.received:
                return False
            await self._restart()
            raise _Fault("HTTP 416 fetching input URL")
        elif response.status == 206 and asked_range:
            # Some servers ignore If-Range, so its promise is checked.
            if start != self.received or _validator(response) != self._validator:
                await self._restart()
                raise _Fault(_UNREACHABLE)
            self._total = total
        else:
            raise _Fault(f"HTTP {response.status} fetching input URL")
        if self._total is not None:
            self._require_size(self._total)
            await self._file.require_space(int(self._total * self._limits.disk_reserve) - self.received)
        self._on_progress(self.received, self._total)
        return True

    async def _read(self, content: aiohttp.StreamReader) -> None:
        pending = bytearray()
        clock = asyncio.get_running_loop().time
        flushed = clock()
        watch = _RateWatch(self._limits)
        try:
            while chunk := await watch.read(content):
                pending += chunk
                self._require_size(self.received + len(pending))
                if len(pending) >= _FLUSH_BYTES or clock() - flushed >= _FLUSH_SEC:
                    await self._flush(pending)
                    flushed = clock()
        except _Fault:
            await self._flush(pending)
            raise
        await self._flush(pending)
        if self._total is not None and self.received != self._total:
            if self.received > self._total:
                await self._restart()
            raise _Fault(_UNREACHABLE)

    async def _flush(self, pending: bytearray) -> None:
        if pending:
            await self._file.write(bytes(pending))
            self.received += len(pending)
            pending.clear()
            self._on_progress(self.received, self._total)

    async def _restart(self) -> None:
        if self.received:
            await self._file.restart()
        self.received = 0
        self._total = self._validator = None

    def _require_size(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise DownloadError(f"input is larger than {self._limits.max_bytes} bytes")


class _RateWatch:
    """Reads, and gives up on a source that sends less than the least rate over a whole window."""

    def __init__(self, limits: FetchLimits) -> None:
        self._window = limits.rate_window_sec
        self._floor = limits.min_bytes_per_sec * limits.rate_window_sec
        self._clock = asyncio.get_running_loop().time
        self._ends = self._clock() + self._window
        self._seen = 0

    async def read(self, content: aiohttp.StreamReader) -> bytes:
        """The next bytes, `b""` at the end. Raise _Fault."""
        while True:
            with _as_fault():
                try:
                    async with asyncio.timeout_at(self._ends):
                        chunk = await content.readany()
                except TimeoutError:
                    self._next_window()
                    continue
            self._seen += len(chunk)
            if chunk and self._clock() >= self._ends:
                self._next_window()
            return chunk

    def _next_window(self) -> None:
        if self._seen < self._floor:
            raise _Fault(_TIMED_OUT, timed_out=True)
        self._seen = 0
        self._ends = self._clock() + self._window


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What If-Range may carry (RFC 9110 13.1.5): a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    if etag is not None:
        return None if etag.startswith("W/") else etag
    return response.headers.get("Last-Modified")


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Start and total of a Content-Range, None where unknown."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None, None
    start, total = match.groups()
    return (int(start) if start else None, int(total) if total and total != "*" else None)
