"""boto3 clients for S3: one for each endpoint, region, key and way there, whose connections go only to vetted addresses."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adapters.storage.s3_errors import S3Faults
from adapters.storage.s3_role import assuming_session, sts_endpoint
from adapters.storage.s3_session import EndpointRefused, SessionOptions, vetted_session
from server.domain.project import S3Config
from server.domain.web_proxy import ProxyAddress
from server.errors import ServiceError
from server.ports.storage import AssumeRole

AddressGuard = Callable[[str], Awaitable[Sequence[str] | None]]
"""Vets a URL for storage use and gives the IP addresses to connect to, or None for no restriction.

Raises ServiceError or ValueError for what is never allowed, OSError for what can't be reached now.
"""

_GUARD_TIMEOUT_SEC = 15.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class S3Options:
    """Sizes in bytes, times in seconds. `attempts` counts the first try; `ca_bundle` is a PEM file."""

    part_size: int = 16 << 20
    part_concurrency: int = 4
    threads: int = 8
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    attempts: int = 4
    max_clients: int = 32
    ca_bundle: str | None = None


@dataclass(frozen=True, slots=True)
class S3Connection:
    """A client and its own threads, so that a storage that hangs holds up nobody else's uploads.

    `keys` gives botocore's frozen credentials that it signs with now; with a role that may ask for them, in this thread.
    """

    client: Any
    threads: ThreadPoolExecutor
    keys: Callable[[], Any] = field(repr=False)
    session: Any = None
    sts: Any = None

    def close(self) -> None:
        """Lets go of idle sockets and of work that has not begun; calls under way end by their own time limits."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()
        if self.sts is not None:
            self.sts.close()
        if self.session is not None:
            self.session.close()


_thread = threading.local()


def run_stoppable(stop: threading.Event, work: Callable[[], _T]) -> _T:
    """Runs blocking S3 work in this thread; once `stop` is set, no further request or retry of it is sent."""
    _thread.stop = stop
    return work()


def _send_nothing_stopped(**_: Any) -> None:
    if _thread.stop.is_set():
        raise CancelledError("stopped")


class _GuardOnLoop:
    """Lets threads ask the guard, which runs on the event loop."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._asked: set[asyncio.Future[Sequence[str] | None]] = set()
        self._closed = False

    def ask(self, loop: asyncio.AbstractEventLoop, url: str) -> Sequence[str] | None:
        """Blocks. Raise EndpointRefused, OSError, or CancelledError once closed."""
        if self._closed:
            raise CancelledError("the server is stopping")
        answer: Future[Sequence[str] | None] = Future()
        try:
            loop.call_soon_threadsafe(self._begin, url, answer)
        except RuntimeError:
            raise CancelledError("the server is stopping") from None
        try:
            return answer.result(_GUARD_TIMEOUT_SEC)
        except (ServiceError, ValueError) as refusal:
            raise EndpointRefused("address refused") from refusal

    def close(self) -> None:
        self._closed = True
        for asked in self._asked:
            asked.cancel()

    def _begin(self, url: str, answer: Future[Sequence[str] | None]) -> None:
        # The coroutine is made here and not in the thread: a loop that stops first would never await it.
        if self._closed:
            answer.cancel()
            return
        asked = asyncio.ensure_future(self._guard(url))
        self._asked.add(asked)

        def tell(_: object) -> None:
            self._asked.discard(asked)
            if asked.cancelled():
                answer.cancel()
            elif error := asked.exception():
                answer.set_exception(error)
            else:
                answer.set_result(asked.result())

        asked.add_done_callback(tell)


@dataclass(frozen=True, slots=True)
class Way:
    """How a bucket is reached and with whose keys. `path_style` None lets the endpoint decide."""

    trusted: bool = False
    session_token: str = field(default="", repr=False)
    path_style: bool | None = None
    proxy: ProxyAddress | None = None
    role: AssumeRole | None = None


def _addressing(config: S3Config, way: Way) -> str:
    custom = bool(config.endpoint)
    if custom if way.path_style is None else way.path_style:
        return "path"
    return "virtual" if custom else "auto"


def _same(config: S3Config, way: Way) -> tuple[str, ...]:
    """Equal where one client serves both. What is secret is in it as a digest."""
    login = (way.proxy.username, way.proxy.password) if way.proxy else ("", "")
    role = (way.role.arn, way.role.external_id, config.bucket) if way.role else ("", "", "")
    secrets = "\0".join((config.access_key, config.secret_key, way.session_token, *login, *role))
    return (
        config.endpoint.rstrip("/"),
        config.region,
        _addressing(config, way),
        "trusted" if way.trusted else "",
        way.proxy.origin if way.proxy else "",
        hashlib.sha256(secrets.encode()).hexdigest(),
    )


class S3Clients:
    """A bounded cache of connections; the least recently used is dropped and ends with its last user."""

    def __init__(self, guard: AddressGuard, options: S3Options) -> None:
        self.options = options
        self._guard = guard
        self._asking = _GuardOnLoop(guard)
        self._cache: OrderedDict[tuple[str, ...], S3Connection] = OrderedDict()
        self._lock = asyncio.Lock()
        self._session: Any = None

    async def vet(self, url: str) -> None:
        """Raises what the guard raises."""
        await self._guard(url)

    async def get(self, config: S3Config, way: Way) -> S3Connection:
        """Raise StorageError where botocore takes no client of such a configuration."""
        key = _same(config, way)
        async with self._lock:
            connection = self._cache.pop(key, None)
            if connection is None:
                loop = asyncio.get_running_loop()
                connection = await asyncio.to_thread(self._connected, config, way, loop)
            self._cache[key] = connection
            if len(self._cache) > self.options.max_clients:
                self._cache.popitem(last=False)
        return connection

    async def close(self) -> None:
        self._asking.close()
        for connection in self._cache.values():
            connection.close()
        self._cache.clear()

    def _connected(self, config: S3Config, way: Way, loop: asyncio.AbstractEventLoop) -> S3Connection:
        from botocore.exceptions import BotoCoreError, InvalidRegionError

        faults = S3Faults(config.bucket)

        def connect() -> S3Connection:
            try:
                return self._connect(config, way, loop)
            except InvalidRegionError:
                raise faults.error("the region is not the name of one", retryable=False) from None
            except BotoCoreError:
                raise
            except ValueError:
                # Of names that the guard resolves and botocore refuses, with the whole address in its text.
                raise faults.error("the endpoint's address cannot be used", retryable=False) from None

        return faults.run("connecting", connect)

    def _connect(self, config: S3Config, way: Way, loop: asyncio.AbstractEventLoop) -> S3Connection:
        import boto3
        from botocore.credentials import Credentials

        if self._session is None:
            self._session = boto3.session.Session()
        sending = None if way.trusted and way.proxy is None else self._sending(way.proxy, loop)
        given = {
            "aws_access_key_id": config.access_key or None,
            "aws_secret_access_key": config.secret_key or None,
            "aws_session_token": way.session_token or None,
        }
        threads = ThreadPoolExecutor(self.options.threads, thread_name_prefix="bax-s3")
        if way.role is None:
            client = self._client(self._session, "s3", config, way, sending, given)
            own = Credentials(config.access_key, config.secret_key, way.session_token or None)
            return S3Connection(client, threads, own.get_frozen_credentials, sending)
        sts = self._client(self._session, "sts", config, way, sending, given)
        assuming = assuming_session(sts, way.role, S3Faults(config.bucket))
        client = self._client(assuming, "s3", config, way, sending, {})
        return S3Connection(
            client, threads, assuming.get_credentials().get_frozen_credentials, sending, sts=sts
        )

    def _sending(self, proxy: ProxyAddress | None, loop: asyncio.AbstractEventLoop) -> Any:
        options = self.options
        sizes = SessionOptions(
            options.connect_timeout, options.read_timeout, options.threads, options.ca_bundle
        )
        return vetted_session(lambda url: self._asking.ask(loop, url), sizes, proxy)

    def _client(
        self, session: Any, service: str, config: S3Config, way: Way, sending: Any, keys: dict[str, Any]
    ) -> Any:
        """`sending`: the session that its requests go through, None for botocore's own."""
        endpoint = config.endpoint.rstrip("/") or None if service == "s3" else sts_endpoint(config)
        # Only an S3 of its own has a region "auto"; us-east-1 signs for it and S3 then names the bucket's own (B-35).
        region = config.region or "auto"
        if region == "auto" and not (endpoint and service == "s3"):
            region = "us-east-1"
        client = session.client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            verify=self.options.ca_bundle,
            config=self._config(config, way, service),
            **keys,
        )
        # Before the sending below: the first answer wins, and a stopped call must not get as far.
        client.meta.events.register_first(f"before-send.{service}", _send_nothing_stopped)
        if sending is not None:
            send = sending.send
            # An answer given here replaces botocore's own sending, which knows proxies and resolves names itself.
            client.meta.events.register_first(f"before-send.{service}", lambda request, **_: send(request))
        return client

    def _config(self, config: S3Config, way: Way, service: str) -> Any:
        from botocore.config import Config

        of_s3: dict[str, Any] = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": _addressing(config, way)},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        return Config(
            connect_timeout=self.options.connect_timeout,
            read_timeout=self.options.read_timeout,
            retries={"mode": "standard", "total_max_attempts": self.options.attempts},
            max_pool_connections=self.options.threads,
            ignore_configured_endpoint_urls=True,
            **(of_s3 if service == "s3" else {}),
        )
