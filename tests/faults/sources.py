"""A source over HTTP that stops half way until it is told to go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from tests.integration.http_sources import Request, head, serve


class SteadySource:
    """`async with SteadySource(file, hold_at=0.5)`; serves ranges. `hold_at` is the share of the file sent first.

    With `resets` it then breaks the connection instead.
    """

    def __init__(self, path: Path, *, hold_at: float, resets: bool = False) -> None:
        self._data = path.read_bytes()
        self._hold_at = int(len(self._data) * hold_at)
        self._resets = resets
        self._released = asyncio.Event()
        self._stack = AsyncExitStack()
        self.holding = asyncio.Event()
        self.url = ""
        self.ranges: list[str | None] = []

    def release(self) -> None:
        self._released.set()

    async def __aenter__(self) -> Self:
        server = await self._stack.enter_async_context(serve(self._respond, host="127.0.0.1"))
        self.url = f"http://127.0.0.1:{server.port}/clip.mp4"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()
        await self._stack.aclose()

    async def _respond(self, request: Request) -> None:
        wanted = request.headers.get("range")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Length": str(len(self._data) - start), "ETag": '"one"'}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(self._data) - 1}/{len(self._data)}"
        await request.send(head(206 if wanted else 200, headers))
        if start < self._hold_at and not self._released.is_set():
            await request.send(self._data[start : self._hold_at])
            start = self._hold_at
            self.holding.set()
            await self._released.wait()
            if self._resets:
                request.reset()
                return
        await request.send(self._data[start:])
