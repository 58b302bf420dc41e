"""A busy room recorded for SOAK_MINUTES (30): sound and picture stay together, memory stays, no frame is missing."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.egress_lips import own_offsets
from benchmarks.egress_marks import Footage, read
from benchmarks.egress_stage import FPS, Hall, finished, hall, memory_mib, tiles
from benchmarks.results import Row, Section
from server.domain.egress import Encoding
from server.domain.egress_sources import RoomTracksSource
from server.ports.recorder import Measured
from tests.integration.recorder.stage import recording
from tests.people import Person

TARGET_DRIFT_MS = 20.0
TARGET_GROWTH_MIB = 10.0
TARGET_ON_TIME = 0.99
_MINUTES, _QUICK_MINUTES = 30.0, 0.5
_PERIOD_SEC = 20.0
# Of a recording's start and end each, for drift and growth.
_PART = 0.2
_PEOPLE = [Person(f"person-{one}", width=640, height=360, busy=True, audio=one == 0) for one in range(4)]
_GUEST = Person("guest", width=320, height=180, audio=False)


def run(*, quick: bool) -> Section:
    minutes = _QUICK_MINUTES if quick else float(os.environ.get("SOAK_MINUTES", _MINUTES))
    with tempfile.TemporaryDirectory(prefix="bax-soak-") as folder:
        return asyncio.run(_soak(Path(folder), minutes * 60))


async def _soak(folder: Path, seconds: float) -> Section:
    async with hall(folder) as ready:
        room = await ready.room(*_PEOPLE)
        composed = ready.plan(room)
        tracks = ready.plan(room, RoomTracksSource(), encoding=Encoding(None, None), container="")
        async with recording(ready.pool, tracks) as beside, recording(ready.pool, composed) as run:
            await run.records(0)
            memory = await _come_and_go(ready, room, run.recorder.pid, seconds)
            measured = await finished(run)
            await finished(beside)
    who = _PEOPLE[0].identity
    footage = await asyncio.to_thread(read, Path(composed.folder) / "part-000.mp4", dict(tiles(_PEOPLE)))
    own = await asyncio.to_thread(own_offsets, Path(tracks.folder), who)
    return Section(_rows(footage.offsets(who), own, memory, footage, measured), [_note(seconds)])


async def _come_and_go(ready: Hall, room: str, pid: int, seconds: float) -> list[float]:
    """Somebody comes and leaves again and again; the recorder's resident memory each time, MiB."""
    memory = []
    deadline = asyncio.get_running_loop().time() + seconds
    number = 0
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        guest = replace(_GUEST, identity=f"guest-{number}")
        await ready.people.join(guest, room)
        await asyncio.sleep(min(left, _PERIOD_SEC) * 0.1)
        await ready.empty(guest)
        await asyncio.sleep(min(left, _PERIOD_SEC) * 0.9)
        memory.append(memory_mib(pid)[0])
        number += 1
    return memory


def _rows(
    offsets: Sequence[tuple[float, float]],
    own: Sequence[tuple[float, float]],
    memory: Sequence[float],
    footage: Footage,
    measured: Measured,
) -> list[Row]:
    recorded, theirs = (1000 * _shift([apart for _, apart in one]) for one in (offsets, own))
    drift = recorded - theirs
    growth = _shift(memory)
    on_time = 1 - (measured.repeated + measured.dropped) / (measured.composed + measured.dropped)
    lost = measured.composed - len(footage.times)
    return [
        Row(
            "sound against picture, end against start",
            f"{drift:+.0f} ms",
            f"in the file {recorded:+.0f} ms, the publisher's own {theirs:+.0f} ms, {len(offsets)} flashes",
            target=f"≤ {TARGET_DRIFT_MS:.0f} ms",
            met=abs(drift) <= TARGET_DRIFT_MS,
        ),
        Row(
            "resident memory, end against start",
            f"{growth:+.1f} MiB",
            f"at the end {memory[-1]:.0f} MiB",
            target=f"≤ {TARGET_GROWTH_MIB:.0f} MiB",
            met=growth <= TARGET_GROWTH_MIB,
        ),
        Row(
            "frames on time",
            f"{100 * on_time:.2f} %",
            f"{measured.composed} frames",
            target=f"≥ {100 * TARGET_ON_TIME:.0f} %",
            met=on_time >= TARGET_ON_TIME,
        ),
        Row(
            "frames composed and not in the file",
            f"{lost}",
            target="0, at a constant rate",
            met=not lost and footage.is_constant(FPS),
        ),
    ]


def _shift(values: Sequence[float]) -> float:
    """How much the middle of the last part is above that of the first."""
    count = max(1, round(len(values) * _PART))
    return statistics.median(values[-count:]) - statistics.median(values[:count])


def _note(seconds: float) -> str:
    return (
        f"{seconds / 60:g} min of four busy 640×360 cameras in 720p30, with somebody who comes and leaves every "
        f"{_PERIOD_SEC:.0f} s. The publisher's own drift, by its sender reports, is taken out."
    )
