"""What a stream is late by at an RTMP server, and what two more destinations cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from adapters.recorder.process import Recorder
from benchmarks.egress_marks import since
from benchmarks.egress_stage import Hall, cores_of, finished, tiles
from benchmarks.results import Row, ratio_of, spread
from server.domain.egress import Destination
from server.ports.recorder import NewOrders
from tests.integration.recorder.stage import recording
from tests.marks import read_number
from tests.people import Person
from tests.servers.rtmp import RtmpServer, rtmp_server

TARGET_LATENCY_SEC = 1.5
TARGET_RATIO = 1.1
_SECONDS, _ROUNDS = 10.0, 4
_QUICK_SECONDS = 3.0
_SETTLE_SEC = 2.0
_TIMEOUT_SEC = 20.0
_OPTIONS = {"rtmp_live": "live", "fflags": "nobuffer", "flags": "low_delay", "probesize": "32768"}


async def measure(hall: Hall, people: Sequence[Person], *, quick: bool) -> list[Row]:
    seconds, rounds = (_QUICK_SECONDS, 1) if quick else (_SECONDS, _ROUNDS)
    room = await hall.room(*people)
    one: list[float] = []
    three: list[float] = []
    with rtmp_server(hall.folder / "rtmp") as server:
        wanted = tuple(Destination(key, server.url(key)) for key in ("a", "b", "c"))
        plan = hall.plan(room, container="", streams="rtmp", destinations=wanted[:1], allow_private_urls=True)
        async with recording(hall.pool, plan) as run:
            await run.records(_SETTLE_SEC)
            viewer = _Viewer(server, people, hall.people.origin)
            late = await viewer.watch(seconds)
            for _ in range(rounds):
                three.append(await _cores(run.recorder, server, wanted, seconds))
                one.append(await _cores(run.recorder, server, wanted[:1], seconds))
            await finished(run)
    await hall.empty(*people)
    ratio = ratio_of(three, one)
    return [
        Row(
            "stream: from the publisher's picture to the RTMP server's viewer",
            spread(late, "s", 2),
            "",
            f"slowest {max(late):.2f} s",
            f"≤ {TARGET_LATENCY_SEC:g} s",
            max(late) <= TARGET_LATENCY_SEC,
        ),
        Row(
            "three destinations: CPU of the recorder",
            spread(three, "cores", 3),
            f"one: {spread(one, 'cores', 3)}",
            f"{ratio:.2f}×",
            f"≤ {TARGET_RATIO:.1f}×",
            ratio <= TARGET_RATIO,
        ),
    ]


async def _cores(
    recorder: Recorder, server: RtmpServer, destinations: tuple[Destination, ...], seconds: float
) -> float:
    await recorder.send(NewOrders(destinations=destinations))
    wanted = {one.id for one in destinations}
    await asyncio.to_thread(_wait_for, server, wanted)
    await asyncio.sleep(_SETTLE_SEC)
    (cores,) = await cores_of([recorder.pid], seconds)
    return cores


def _wait_for(server: RtmpServer, keys: set[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SEC
    while server.publishing() != keys:
        if time.monotonic() > deadline:
            raise RuntimeError(f"streamed to {server.publishing()}, not to {keys}")
        time.sleep(0.1)


class _Viewer:
    """Plays the first destination as any player does, and looks at the clock when a picture is decoded."""

    def __init__(self, server: RtmpServer, people: Sequence[Person], origin: int) -> None:
        self._url = server.url("a")
        self._rect = next(iter(tiles(people).values()))
        self._origin = origin
        self._late: list[float] = []

    async def watch(self, seconds: float) -> list[float]:
        """Seconds that each picture is late by."""
        await asyncio.to_thread(self._play, seconds)
        return self._late

    def _play(self, seconds: float) -> None:
        import av

        rect = self._rect
        with av.open(self._url, options=_OPTIONS, timeout=_TIMEOUT_SEC) as stream:
            began = 0.0
            for frame in stream.decode(video=0):
                now = time.time()
                began = began or now
                if now > began + _SETTLE_SEC + seconds:
                    return
                luma = frame.to_ndarray(format="gray8").astype(np.uint8, copy=False)
                number = read_number(luma[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width])
                # What came before, the player had taken in while it opened.
                if number is not None and now > began + _SETTLE_SEC:
                    self._late.append(-since(now - self._origin, number))
