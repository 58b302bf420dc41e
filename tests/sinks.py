"""A real HTTP server that receives webhooks in tests: it keeps what came in and answers by script."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it was on the wire. `headers` ignore case; `at` is monotonic seconds of its arrival."""

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """How to answer one request.

    `hang` waits for `Sink.release()` (or the client's patience) first. `drip_sec` sends one byte of the body at a time
    with that pause. `body_size` sends so many zero bytes instead of `body`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hang: bool = False
    drip_sec: float | None = None
    body_size: int | None = None


Chooser = Callable[[Received], Answer]


class Sink:
    """`async with Sink() as sink:` listens on a free loopback port.

    Each request takes the next of `script`; when it is used up, `default` answers (an Answer, or a function of the
    request).
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, default: Answer | Chooser | None = None) -> None:
        self.received: list[Received] = []
        self.script: deque[Answer] = deque()
        self.default: Answer | Chooser = default or Answer()
        self.bytes_sent = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._tls = tls
        self._arrived = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/hook"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()
        assert self._runner is not None
        await self._runner.cleanup()

    def release(self) -> None:
        """Lets hanging answers go, now and from now on."""
        self._released.set()

    async def wait_for(self, count: int, *, deadline_sec: float = 20.0) -> list[Received]:
        """The requests so far, once there are at least `count`."""
        async with asyncio.timeout(deadline_sec), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return list(self.received)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            method=request.method,
            path=request.path,
            query=request.query_string,
            headers=CIMultiDictProxy(CIMultiDict(request.headers)),
            body=await request.read(),
            at=time.monotonic(),
        )
        self.received.append(received)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        async with self._arrived:
            self._arrived.notify_all()
        try:
            return await self._answer(request, self._next_answer(received))
        finally:
            self.in_flight -= 1

    def _next_answer(self, received: Received) -> Answer:
        if self.script:
            return self.script.popleft()
        return self.default if isinstance(self.default, Answer) else self.default(received)

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.hang:
            await self._released.wait()
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        if answer.body_size is not None:
            response.content_length = answer.body_size
        await response.prepare(request)
        if answer.body_size is not None:
            await self._flood(response, answer.body_size)
        elif answer.drip_sec is not None:
            for byte in answer.body:
                await response.write(bytes([byte]))
                self.bytes_sent += 1
                await asyncio.sleep(answer.drip_sec)
        else:
            await response.write(answer.body)
        await response.write_eof()
        return response

    async def _flood(self, response: web.StreamResponse, size: int) -> None:
        block = bytes(64 * 1024)
        for start in range(0, size, len(block)):
            piece = block[: min(len(block), size - start)]
            await response.write(piece)
            self.bytes_sent += len(piece)
