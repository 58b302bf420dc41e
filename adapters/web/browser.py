"""Chromium on the display, driven over a pipe: opens the page and hears what it logs."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from adapters.web.programs import Programs, end, environment, start

_ANSWER_SEC = 20.0
_LOAD_SEC = 30.0
_LOAD_TRIES = 3
_MAX_MESSAGE = 16 << 20

_FLAGS = (
    "--kiosk", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars", "--disable-infobars",
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-default-apps", "--disable-translate",
    "--disable-features=Translate,MediaRouter,DialMediaRouteProvider,OptimizationHints",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--autoplay-policy=no-user-gesture-required",
    "--force-device-scale-factor=1", "--window-position=0,0", "--password-store=basic", "--use-mock-keychain",
    "--deny-permission-prompts", "--remote-debugging-pipe",
)  # fmt: skip

# The browser insists on these numbers, and shells cannot move descriptors above 9.
_AS_3_AND_4 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"

START_SIGNAL = "START_RECORDING"
END_SIGNAL = "END_RECORDING"


class PageFailed(Exception):
    """The page cannot be shown; the message is for the caller and holds no part of its address."""


class Browser:
    """One page. `on_log` hears each console line that is one of the signals; `closed` is set when the browser ends."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, on_log: Callable[[str], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_log = on_log
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._status: int | None = None
        self._loaded = asyncio.Event()
        self._session: str | None = None
        self.closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name="browser")

    async def open(self, url: str) -> None:
        """Shows the page once it has loaded. Raise PageFailed."""
        targets = await self._send("Target.getTargets")
        page = next(one for one in targets["targetInfos"] if one["type"] == "page")
        attached = await self._send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            await self._send(f"{domain}.enable")
        for attempt in range(1, _LOAD_TRIES + 1):
            try:
                await self._navigate(url)
                break
            except PageFailed:
                if attempt == _LOAD_TRIES:
                    raise

    async def _navigate(self, url: str) -> None:
        self._loaded.clear()
        self._status = None
        try:
            async with asyncio.timeout(_LOAD_SEC):
                result = await self._send("Page.navigate", url=url)
                if problem := result.get("errorText"):
                    raise PageFailed(f"page load error: {problem}")
                await self._loaded.wait()
        except TimeoutError:
            raise PageFailed("page load error: it took too long") from None
        self._check_status()

    def _check_status(self) -> None:
        if self._status is not None and self._status >= 400:
            raise PageFailed(f"page load error: HTTP {self._status}")

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, None if it throws."""
        answer = await self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()

    async def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        try:
            async with asyncio.timeout(_ANSWER_SEC):
                result: dict[str, Any] = await answer
            return result
        except TimeoutError:
            raise PageFailed("the browser does not answer") from None
        finally:
            del self._pending[number]

    async def _read(self) -> None:
        try:
            while True:
                self._hear(json.loads((await self._reader.readuntil(b"\0"))[:-1]))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            self.closed.set()
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(PageFailed("the browser ended"))

    def _hear(self, message: Mapping[str, Any]) -> None:
        if (answer := self._pending.get(message.get("id", 0))) is not None and not answer.done():
            if "error" in message:
                answer.set_exception(PageFailed("the browser refused a command"))
            else:
                answer.set_result(message["result"])
            return
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.responseReceived" if parameters.get("type") == "Document" and self._status is None:
                self._status = parameters["response"]["status"]
            case "Runtime.consoleAPICalled":
                for argument in parameters.get("args", ()):
                    if argument.get("value") in (START_SIGNAL, END_SIGNAL):
                        self._on_log(argument["value"])
            case "Inspector.targetCrashed":
                self.closed.set()


@asynccontextmanager
async def opened_browser(
    programs: Programs,
    folder: Path,
    size: tuple[int, int],
    env: Mapping[str, str],
    on_log: Callable[[str], None],
    *,
    proxy: str | None,
    udp: bool,
) -> AsyncIterator[Browser]:
    """A browser with a fresh profile in `folder`; `proxy` (`host:port`) carries everything it asks for.

    With `udp` WebRTC may also go around the proxy: a template page takes its media from LiveKit directly.
    """
    # Without a window manager the window ends up one pixel smaller than asked for.
    window = f"--window-size={size[0] + 1},{size[1] + 1}"
    flags = [*_FLAGS, window, f"--user-data-dir={folder / 'profile'}"]
    if os.geteuid() == 0:
        # Chromium's sandbox refuses to run as root: docs/security.md says to run workers as a user.
        flags.append("--no-sandbox")
    if proxy is not None:
        # Loopback names too: by default Chromium passes the proxy by for them.
        flags += [] if udp else ["--force-webrtc-ip-handling-policy=disable_non_proxied_udp"]
        flags += [f"--proxy-server=http://{proxy}", "--proxy-bypass-list=<-loopback>"]
    orders_read, orders_write = _high_pipe()
    answers_read, answers_write = _high_pipe()
    try:
        process = await start(
            [
                sys.executable, "-I", "-S", "-c", _AS_3_AND_4, str(orders_read), str(answers_write),
                programs.browser, *flags, "about:blank",
            ],
            environment(folder, env),
            pass_fds=(orders_read, answers_write),
        )  # fmt: skip
    finally:
        os.close(orders_read)
        os.close(answers_write)
    try:
        browser = Browser(*await _streams(answers_read, orders_write), on_log)
        try:
            yield browser
        finally:
            with suppress(PageFailed):
                await browser.close()
    finally:
        await end(process)


def _high_pipe() -> tuple[int, int]:
    """Both ends above the numbers that the browser's ends are moved to."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for low in ends:
        os.close(low)
    return high[0], high[1]


async def _streams(reading: int, writing: int) -> tuple[asyncio.StreamReader, asyncio.WriteTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_MAX_MESSAGE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb"))
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb"))
    return reader, transport
