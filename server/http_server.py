"""The HTTP listener: a socket bound before anything else, and uvicorn under our signals and limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Idle connections are kept longer than the 60 s of common load balancers, so that they never meet one we just closed.
KEEP_ALIVE_SEC = 75
HEAD_TIMEOUT_SEC = 15.0
# The application refuses heads over 16 KiB with an answer; this only bounds what is buffered before it sees them.
MAX_HEAD_BYTES = 64 * 1024
_BACKLOG = 1024
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class ListenError(Exception):
    """An address cannot be listened on; the message names it and what to do."""


def bind_http(host: str, port: int, *, setting: str = "--http-port or BAX_HTTP_PORT") -> socket.socket:
    """A bound socket, so that port 0 has become a real one before anybody is told.

    Raise ListenError, which tells to change `setting` where the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # The protocol is named so that asyncio turns Nagle off for accepted connections.
        listener = socket.socket(infos[0][0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as fault:
        raise ListenError(f"cannot listen on {host}: {fault.strerror}; see BAX_HTTP_HOST") from fault
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(infos[0][4])
        # Listening at once makes a second server fail here instead of after it has opened its database.
        listener.listen(_BACKLOG)
    except OSError as fault:
        listener.close()
        raise ListenError(
            f"cannot listen on {host} port {port} for HTTP: {fault.strerror}; "
            f"choose another port with {setting} (0 picks a free one)"
        ) from fault
    return listener


class HttpServer(uvicorn.Server):
    """Serves an ASGI application on a bound socket until `stop`; signals are left to the caller."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedHttpProtocol,
                # Signalling of participants is all that is served over websockets.
                ws="wsproto",
                lifespan="off",
                log_config=None,
                log_level="warning",
                # Paths of objects are capabilities, and queries may hold signatures: neither is logged.
                access_log=False,
                server_header=False,
                # `X-Forwarded-For` is not believed: addresses serve the log only.
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SEC,
                timeout_graceful_shutdown=None,
            )
        )
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to accept; the task ends when the server has stopped."""
        self._task = asyncio.create_task(self.serve(sockets=[self._listener]), name="http")
        return self._task

    async def stop(self, grace_sec: float) -> None:
        """Accept no more, let requests end for at most `grace_sec`, then cancel them."""
        self.config.timeout_graceful_shutdown = max(1, round(grace_sec))
        self.should_exit = True
        if self._task is not None:
            await self._task

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with what it lacks: a request's head must come within a time and a size."""

    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_done()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SEC, self._refuse, b"408 Request Timeout")

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes) -> None:
        self._head_done()
        if not self.transport.is_closing():
            # A connection that was only opened is closed without a word; behind a request that is still being answered
            # the bytes would be out of place.
            cycle = cast("RequestResponseCycle | None", self.cycle)
            if self._head_bytes and (cycle is None or cycle.response_complete):
                self.transport.write(_REFUSAL % status)
            self.transport.close()
