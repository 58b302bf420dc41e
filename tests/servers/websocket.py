"""A websocket server on loopback that keeps what it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web


@dataclass(slots=True)
class Ear:
    """What came to `url`, of one connection. `close_code` is None while it is open; any other path answers 403."""

    url: str = ""
    samples: bytearray = field(default_factory=bytearray)
    texts: list[str] = field(default_factory=list)
    content_type: str = ""
    close_code: int | None = None
    socket: web.WebSocketResponse | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/sound":
            return web.Response(status=403)
        self.content_type = request.headers.get("Content-Type", "")
        self.socket = web.WebSocketResponse()
        await self.socket.prepare(request)
        await self.socket.send_str("what a server says is read and dropped")
        async for message in self.socket:
            if message.type is WSMsgType.BINARY:
                self.samples += message.data
            elif message.type is WSMsgType.TEXT:
                self.texts.append(message.data)
        self.close_code = self.socket.close_code
        return self.socket


@asynccontextmanager
async def listening_ear() -> AsyncIterator[Ear]:
    ear = Ear()
    application = web.Application()
    application.router.add_get("/{path}", ear.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ear.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/sound"
    yield ear
    await runner.cleanup()
