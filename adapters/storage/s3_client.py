"""boto3 clients for S3: one per endpoint, region and key, whose connections go only to vetted addresses."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from server.domain.project import S3Config
from server.errors import ServiceError

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
    """A client and its own threads, so that a storage that hangs holds up nobody else's uploads."""

    client: Any
    threads: ThreadPoolExecutor
    session: Any = None

    def close(self) -> None:
        """Lets go of idle sockets and of work that has not begun; calls under way end by their own time limits."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()
        if self.session is not None:
            self.session.close()


class EndpointRefused(CancelledError):
    """The guard refused an address while connecting.

    Of this base because botocore lets it through unwrapped and never retries it.
    """


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
class _Access:
    trusted: bool
    session_token: str = field(repr=False)
    path_style: bool


def _addressing(access: _Access, *, custom: bool) -> str:
    if access.path_style:
        return "path"
    return "virtual" if custom else "auto"


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

    async def get(
        self,
        config: S3Config,
        *,
        trusted: bool,
        session_token: str = "",
        path_style: bool | None = None,
    ) -> S3Connection:
        access = _Access(trusted, session_token, bool(config.endpoint) if path_style is None else path_style)
        secret = hashlib.sha256(f"{config.secret_key}\0{session_token}".encode()).hexdigest()
        how = f"{trusted} {access.path_style}"
        key = (config.endpoint.rstrip("/"), config.region, config.access_key, secret, how)
        async with self._lock:
            connection = self._cache.pop(key, None)
            if connection is None:
                loop = asyncio.get_running_loop()
                connection = await asyncio.to_thread(self._connect, config, access, loop)
            self._cache[key] = connection
            if len(self._cache) > self.options.max_clients:
                self._cache.popitem(last=False)
        return connection

    async def close(self) -> None:
        self._asking.close()
        for connection in self._cache.values():
            connection.close()
        self._cache.clear()

    def _connect(self, config: S3Config, access: _Access, loop: asyncio.AbstractEventLoop) -> S3Connection:
        import boto3
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.session.Session()
        custom = bool(config.endpoint)
        region = config.region or "auto"
        client = self._session.client(
            "s3",
            # AWS has no region "auto"; us-east-1 signs for it and S3 then names the bucket's own (B-35).
            region_name=region if custom or region != "auto" else "us-east-1",
            endpoint_url=config.endpoint.rstrip("/") or None,
            aws_access_key_id=config.access_key or None,
            aws_secret_access_key=config.secret_key or None,
            aws_session_token=access.session_token or None,
            verify=self.options.ca_bundle,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": _addressing(access, custom=custom)},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=self.options.connect_timeout,
                read_timeout=self.options.read_timeout,
                retries={"mode": "standard", "total_max_attempts": self.options.attempts},
                max_pool_connections=self.options.threads,
                ignore_configured_endpoint_urls=True,
            ),
        )
        # Before the sending below: the first answer wins, and a stopped call must not get as far.
        client.meta.events.register_first("before-send.s3", _send_nothing_stopped)
        session = None
        if not access.trusted:
            session = _vetted_session(lambda url: self._asking.ask(loop, url), self.options)
            send = session.send
            # An answer given here replaces botocore's own sending, which knows proxies and resolves names itself.
            client.meta.events.register_first("before-send.s3", lambda request, **_: send(request))
        threads = ThreadPoolExecutor(self.options.threads, thread_name_prefix="bax-s3")
        return S3Connection(client, threads, session)


def _vetted_session(ask: Callable[[str], Sequence[str] | None], options: S3Options) -> Any:
    """A botocore HTTP session without proxies; `ask` gives the addresses of an origin, None for no restriction.

    Each new connection asks the guard and goes to an address it gave, so a name that resolves to something else
    a moment later (DNS rebinding) changes nothing. TLS still checks the name.
    """
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )
    from botocore.httpsession import URLLib3Session
    from urllib3.exceptions import HTTPError

    def dial(connection: Any, scheme: str, connect: Callable[[], socket.socket]) -> socket.socket:
        addresses = ask(_origin(scheme, connection.host, connection.port))
        if addresses is None:
            return connect()
        name = connection._dns_host
        error: Exception | None = None
        for address in addresses:
            connection._dns_host = str(ipaddress.ip_address(address))
            try:
                return connect()
            except (OSError, HTTPError) as caught:
                error = caught
            finally:
                connection._dns_host = name
        raise error or OSError("the storage endpoint has no address")

    class PlainConnection(AWSHTTPConnection):  # type: ignore[misc,unused-ignore]
        def _new_conn(self) -> socket.socket:
            return dial(self, "http", super()._new_conn)

    class TlsConnection(AWSHTTPSConnection):  # type: ignore[misc,unused-ignore]
        def _new_conn(self) -> socket.socket:
            return dial(self, "https", super()._new_conn)

    class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc,unused-ignore]
        ConnectionCls = PlainConnection

    class TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc,unused-ignore]
        ConnectionCls = TlsConnection

    session = URLLib3Session(
        verify=options.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True,
        timeout=(options.connect_timeout, options.read_timeout),
        max_pool_connections=options.threads,
    )
    session._manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    return session


def _origin(scheme: str, host: str, port: int) -> str:
    host = host.strip("[]")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
