"""From a call to what it does: start, UpdateLayout and stop, on a whole server with its job engine and warm recorder."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from livekit.api import LiveKitAPI
from livekit.protocol import egress as pb

from adapters.recorder.timeline import HOLD_SEC
from benchmarks.egress_marks import read, since
from benchmarks.egress_stage import Hall, tiles
from benchmarks.results import Row, spread
from benchmarks.servers import Server, bax
from tests.people import Person

STARTS, QUICK_STARTS = 10, 3
TARGET_FIRST_FRAME_SEC = 0.5
TARGET_ANSWER_MS = 50.0
TARGET_COMPLETE_SEC = 1.5
TARGET_LAYOUT_MS = 150.0
_LONG_SEC, _QUICK_LONG_SEC = 60.0, 10.0
_KEY, _SECRET = "APIbenchmark", "a-secret-of-the-benchmark-0123456789"
_TIMEOUT_SEC = 60.0
# In which the server makes its first recorder ready, as it does before anybody comes.
_BOOT_SEC = 3.0
_POLL_SEC = 0.02
# So many pixels must differ by more than coding noise.
_CHANGED_SHARE = 0.01
_CHANGED_BY = 24


@dataclass(frozen=True, slots=True)
class _Start:
    """Seconds after the call began: its answer, ACTIVE as a client sees it, first frame written, what that shows."""

    answer: float
    active: float
    written: float
    shown: float


async def measure(hall: Hall, people: Sequence[Person], *, quick: bool) -> list[Row]:
    room = await hall.room(*people)
    address = hall.livekit.address
    with bax(
        hall.folder / "bax",
        "all",
        BAX_LIVEKIT_URL=address.url,
        BAX_LIVEKIT_API_KEY=address.api_key,
        BAX_LIVEKIT_API_SECRET=address.api_secret,
        BAX_BOOTSTRAP_LIVEKIT_API_KEY=_KEY,
        BAX_BOOTSTRAP_LIVEKIT_API_SECRET=_SECRET,
    ) as server:
        async with LiveKitAPI(f"http://{server.http}", _KEY, _SECRET) as livekit:
            calls = _Calls(server, livekit, hall, room, people)
            await asyncio.sleep(_BOOT_SEC)
            starts = [await calls.start() for _ in range(QUICK_STARTS if quick else STARTS)]
            layouts = await calls.layouts(2 if quick else 5)
            complete = await calls.stop(_QUICK_LONG_SEC if quick else _LONG_SEC)
    await hall.empty(*people)
    return _rows(starts, layouts, complete, quick=quick)


class _Calls:
    def __init__(
        self, server: Server, livekit: LiveKitAPI, hall: Hall, room: str, people: Sequence[Person]
    ) -> None:
        self._server = server
        self._livekit = livekit
        self._folder = hall.folder
        self._origin = hall.people.origin
        self._room = room
        self._people = people

    async def start(self) -> _Start:
        began = time.time()
        egress = await self._call("POST", "/v1/egress/start", self._wanted())
        answered = time.time()
        await self._until(egress["id"], pb.EGRESS_ACTIVE)
        active = time.time()
        await asyncio.sleep(1.0)
        info, file = await self._stopped(egress["id"])
        written = info.file_results[0].started_at / 1e9 + HOLD_SEC
        first = await asyncio.to_thread(self._first_number, file)
        shown = began + since(began - self._origin, first)
        return _Start(answered - began, active - began, written - began, shown - began)

    async def layouts(self, changes: int) -> list[float]:
        """Seconds from the call until a frame that differs for it is composed."""
        egress = await self._call("POST", "/v1/egress/start", self._wanted())
        await self._until(egress["id"], pb.EGRESS_ACTIVE)
        called = []
        for number in range(changes):
            # Between two flashes, after which everything is at rest.
            await asyncio.sleep(2.4 - time.time() % 1.0)
            called.append(time.time())
            layout = ("speaker", "grid")[number % 2]
            await self._livekit.egress.update_layout(
                pb.UpdateLayoutRequest(egress_id=egress["id"], layout=layout)
            )
        await asyncio.sleep(1.0)
        info, file = await self._stopped(egress["id"])
        began = info.file_results[0].started_at / 1e9
        changed = await asyncio.to_thread(_changes, file, [at - began for at in called])
        return [at + began + HOLD_SEC - call for at, call in zip(changed, called, strict=True)]

    async def stop(self, seconds: float) -> float:
        """Seconds from the call of a recording of that length until it is COMPLETE."""
        egress = await self._call("POST", "/v1/egress/start", self._wanted())
        await self._until(egress["id"], pb.EGRESS_ACTIVE)
        await asyncio.sleep(seconds)
        began = time.perf_counter()
        await self._livekit.egress.stop_egress(pb.StopEgressRequest(egress_id=egress["id"]))
        await self._until(egress["id"], pb.EGRESS_COMPLETE)
        return time.perf_counter() - began

    def _wanted(self) -> dict[str, Any]:
        return {
            "roomName": self._room,
            "mode": "record",
            "layout": "grid",
            "quality": "720p",
            "file": {"fileType": "MP4"},
        }

    async def _call(self, verb: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self._server.call, verb, path, body)

    async def _until(self, egress_id: str, status: int) -> pb.EgressInfo:
        deadline = time.monotonic() + _TIMEOUT_SEC
        while True:
            listed = await self._livekit.egress.list_egress(pb.ListEgressRequest(egress_id=egress_id))
            info = listed.items[0]
            if info.status == status:
                return info
            if info.status > pb.EGRESS_ENDING or time.monotonic() > deadline:
                raise RuntimeError(f"egress {egress_id} is {pb.EgressStatus.Name(info.status)}: {info.error}")
            await asyncio.sleep(_POLL_SEC)

    async def _stopped(self, egress_id: str) -> tuple[pb.EgressInfo, Path]:
        await self._livekit.egress.stop_egress(pb.StopEgressRequest(egress_id=egress_id))
        info = await self._until(egress_id, pb.EGRESS_COMPLETE)
        egress = await self._call("GET", f"/v1/egress/{egress_id}")
        target = self._folder / f"{egress_id}.mp4"
        await asyncio.to_thread(urllib.request.urlretrieve, egress["fileUrl"], target)
        return info, target

    def _first_number(self, file: Path) -> int:
        """The newest of everybody's in the first picture that shows one."""
        footage = read(file, dict(tiles(self._people)))
        for seen in zip(*footage.numbers.values(), strict=True):
            if numbers := [number for number in seen if number is not None]:
                return max(cast("list[int]", numbers))
        raise RuntimeError("nobody can be seen in the recording")


def _changes(file: Path, called: Sequence[float]) -> list[float]:
    """For each position the first one after it where the picture is laid out in another way."""
    import av

    lumas, times = [], []
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            lumas.append(frame.to_ndarray(format="gray8")[::4, ::4])
            times.append(float(frame.time or 0.0))
    found = []
    for at in called:
        before = [luma for luma, time_ in zip(lumas, times, strict=True) if at - 0.3 < time_ <= at]
        least, most = np.min(before, axis=0).astype(int), np.max(before, axis=0).astype(int)
        found.append(
            next(
                time_
                for luma, time_ in zip(lumas, times, strict=True)
                if time_ > at
                and np.mean((luma < least - _CHANGED_BY) | (luma > most + _CHANGED_BY)) > _CHANGED_SHARE
            )
        )
    return found


def _rows(starts: Sequence[_Start], layouts: Sequence[float], complete: float, *, quick: bool) -> list[Row]:
    def one(
        what: str, seconds: Sequence[float], target: float | None, unit: str, *, p95: bool = False
    ) -> Row:
        factor = 1000 if unit == "ms" else 1
        values = [value * factor for value in seconds]
        worst = float(np.percentile(values, 95)) if p95 else max(values)
        figure = spread(values, unit, 0 if unit == "ms" else 2)
        judged = f"{'p95' if p95 else 'slowest'} {worst:.{0 if unit == 'ms' else 2}f} {unit}"
        goal = "" if target is None else f"≤ {target:g} {unit}"
        return Row(what, figure, "", judged, goal, None if target is None else worst <= target)

    length = _QUICK_LONG_SEC if quick else _LONG_SEC
    return [
        one("start: the call answers", [s.answer for s in starts], TARGET_ANSWER_MS, "ms", p95=True),
        one(
            "start: first frame in the file",
            [s.written for s in starts],
            TARGET_FIRST_FRAME_SEC,
            "s",
            p95=True,
        ),
        one("start: moment shown in the first picture", [s.shown for s in starts], None, "s", p95=True),
        one("start: ACTIVE for who asks", [s.active for s in starts], None, "s", p95=True),
        one("UpdateLayout: first frame that differs", layouts, TARGET_LAYOUT_MS, "ms"),
        one(f"stop: COMPLETE, {length:.0f} s recorded", [complete], TARGET_COMPLETE_SEC, "s"),
    ]
