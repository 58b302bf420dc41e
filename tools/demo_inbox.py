"""The receiver of the tour, on loopback: serves its clip and takes its webhooks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tools.demo_rooms import Delivery

WEBHOOK_TIMEOUT_SEC = 30


class TourFailed(Exception):
    """Something that the tour shows is not so."""


@dataclass(slots=True)
class Inbox:
    """The receiver of the tour: serves the clip and takes webhooks."""

    address: str
    received: list[Delivery] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for(self, event: str, job_id: str) -> Delivery:
        def found() -> list[Delivery]:
            return self.about(lambda one: one["event"] == event and one["data"].get("jobId") == job_id)

        await self.wait_until(lambda: bool(found()), event)
        return found()[0]

    def about(self, wanted: Callable[[dict[str, Any]], bool]) -> list[Delivery]:
        """What came so far and whose envelope is wanted, in the order it came."""
        return [(headers, body) for headers, body in self.received if wanted(json.loads(body))]

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WEBHOOK_TIMEOUT_SEC), self.arrived:
                await self.arrived.wait_for(condition)
        except TimeoutError:
            raise TourFailed(f"no webhook {what} came within {WEBHOOK_TIMEOUT_SEC} s") from None


@asynccontextmanager
async def opened_inbox(clip: Path) -> AsyncIterator[Inbox]:
    async def hook(request: web.Request) -> web.Response:
        body = await request.read()
        async with inbox.arrived:
            inbox.received.append((request.headers, body))
            inbox.arrived.notify_all()
        return web.Response()

    async def video(_: web.Request) -> web.FileResponse:
        return web.FileResponse(clip)

    app = web.Application()
    app.add_routes([web.post("/hook", hook), web.get("/clip.mp4", video)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    inbox = Inbox(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield inbox
    finally:
        await runner.cleanup()
