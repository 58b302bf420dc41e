"""Many clients that send almost nothing hold up nobody else (encoding-and-safety 2.4, 2.8 case 22)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Eventually
from tests.descriptors import descriptors
from tests.servers.bax import BaxServer, bax_server

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(180)]

SLOW_HEADS = 500
SLOW_BODIES = 50
CALLS = 200
DEADLINE_SEC = 60.0


class SlowClient:
    """Sends the start of a request, then a byte every five seconds until it is shown the door."""

    def __init__(self, start: bytes) -> None:
        self.answer = b""
        self._start = start

    async def run(self, url: str, opened: asyncio.Semaphore) -> None:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(self._start)
        opened.release()
        reading = asyncio.create_task(self._read(reader))
        try:
            while not reading.done():
                writer.write(b"a")
                await asyncio.wait({reading}, timeout=5)
            reading.result()
        finally:
            reading.cancel()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Until the connection is closed; a byte that crosses the answer resets it, after the answer."""
        with contextlib.suppress(ConnectionError):
            self.answer = await reader.readline()
            await reader.read()


def slow_head() -> SlowClient:
    return SlowClient(b"GET /video/jobs HTTP/1.1\r\nhost: x\r\nx-slow: ")


def slow_body(server: BaxServer) -> SlowClient:
    head = "POST /video/convert HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
    return SlowClient(head.encode() + b'\r\n{"inputUrl": "')


async def call_repeatedly(server: BaxServer) -> Counter[int]:
    statuses = Counter[int]()
    for _ in range(CALLS):
        async with asyncio.timeout(DEADLINE_SEC):
            answer = await asyncio.to_thread(server.call, "GET", "/video/jobs")
        statuses[answer.status] += 1
    return statuses


def connections_of(server: BaxServer) -> int:
    return sum(one.startswith("socket:") for one in descriptors(server.process.pid))


async def test_hundreds_of_slow_clients_hold_up_nobody(tmp_path: Path, eventually: Eventually) -> None:
    """500 heads and 50 bodies that never end, at once: others are answered meanwhile, and all of these are sent away."""
    with bax_server(tmp_path / "bax", role="api") as server:
        before = connections_of(server)
        slow = [slow_head() for _ in range(SLOW_HEADS)] + [slow_body(server) for _ in range(SLOW_BODIES)]
        opened = asyncio.Semaphore(0)
        running = [asyncio.create_task(one.run(server.url, opened)) for one in slow]
        for _ in slow:
            await opened.acquire()
        statuses = await call_repeatedly(server)
        still_there = sum(not task.done() for task in running)
        async with asyncio.timeout(DEADLINE_SEC):
            await asyncio.gather(*running)
        heads = Counter(one.answer[:12] for one in slow[:SLOW_HEADS])
        bodies = Counter(one.answer[:12] for one in slow[SLOW_HEADS:])
        await eventually(lambda: connections_of(server) <= before)

        assert statuses == {200: CALLS}
        assert still_there > 0
        assert heads == {b"HTTP/1.1 408": SLOW_HEADS}
        assert bodies == {b"HTTP/1.1 408": SLOW_BODIES}
        assert server.stop() == 0
