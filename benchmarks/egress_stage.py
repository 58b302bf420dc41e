"""A room with people in it and recorders beside it: how they are started for the benchmark, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.recorder.process import RecorderPool
from server.domain.egress import AudioEncoding, Encoding, VideoEncoding
from server.domain.egress_sources import Source
from server.domain.layout import Rect, StageTrack, arrange
from server.ports.recorder import Ended, Finish, Measured, RecorderPlan
from tests.integration.recorder.stage import Run, plan_for, recording
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer, livekit_server

WIDTH, HEIGHT, FPS = 1280, 720, 30
PROGRAM = Encoding(VideoEncoding(width=WIDTH, height=HEIGHT, fps=FPS, kbps=3000), AudioEncoding())
_TICK = os.sysconf("SC_CLK_TCK")
# What a recorder does in its first moments, as opening encoders, belongs to no steady state.
_SETTLE_SEC = 1.0


@dataclass(frozen=True, slots=True)
class Hall:
    """A LiveKit server of its own, a process of people, and warm recorders."""

    livekit: LiveKitServer
    people: People
    pool: RecorderPool
    folder: Path
    sids: dict[str, dict[str, str]] = field(default_factory=dict)

    async def room(self, *people: Person) -> str:
        """A new room with these in it; `sids` has their tracks, by medium."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        for person in people:
            self.sids[person.identity] = await self.people.join(person, name)
        return name

    async def empty(self, *people: Person) -> None:
        for person in people:
            await self.people.tell(person.identity, "leave")

    def plan(self, room: str, source: Source | None = None, **more: Any) -> RecorderPlan:
        """Into a new folder, as 720p30 H.264 and AAC unless `more` says otherwise."""
        folder = self.folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        return plan_for(self.livekit, room, folder, source, **{"encoding": PROGRAM, **more})

    async def record(self, plan: RecorderPlan, seconds: float) -> Take:
        """Records so long, after a moment to settle in; what it cost in that time."""
        async with recording(self.pool, plan) as run:
            await run.records(_SETTLE_SEC)
            (cores,) = await cores_of([run.recorder.pid], seconds)
            rss, pss = memory_mib(run.recorder.pid)
            measured = await finished(run)
        return Take(Path(plan.folder), cores, rss, pss, measured)


@dataclass(frozen=True, slots=True)
class Take:
    """One recording: processor cores and MiB of memory while it ran, and what it told of itself."""

    folder: Path
    cores: float
    rss: float
    pss: float
    measured: Measured

    @property
    def file(self) -> Path:
        return media_of(self.folder)

    @property
    def on_time(self) -> float:
        """The share of frames that were composed, in place of repeating the one before or leaving a gap."""
        due = self.measured.composed + self.measured.dropped
        return 1 - (self.measured.repeated + self.measured.dropped) / due


@contextlib.asynccontextmanager
async def hall(folder: Path) -> AsyncIterator[Hall]:
    pool = RecorderPool()
    with livekit_server(folder) as livekit:
        async with People(livekit) as people:
            pool.warm_up()
            try:
                yield Hall(livekit, people, pool, folder)
            finally:
                await pool.aclose()


async def finished(run: Run) -> Measured:
    """Ends a recording; its last figures."""
    await run.recorder.send(Finish())
    await run.hears(Ended)
    return run.all(Measured)[-1]


async def cores_of(pids: Sequence[int], seconds: float) -> list[float]:
    """Processor time of each process, all its threads, over the next so many seconds, per second."""
    before, began = [cpu_sec(pid) for pid in pids], time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    return [(cpu_sec(pid) - earlier) / took for pid, earlier in zip(pids, before, strict=True)]


def cpu_sec(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICK


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident now, and the part of it that is its own (shared pages by share)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = dict(re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE))
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def tiles(people: Sequence[Person], layout: str = "grid") -> dict[str, Rect]:
    """Where each stands in the picture, in the order they joined."""
    tracks = [StageTrack(one.identity, one.identity, "", "camera", one.width, one.height) for one in people]
    return {tile.track_id: tile.rect for tile in arrange(layout, tracks, None, WIDTH, HEIGHT)}


def media_of(folder: Path) -> Path:
    return next(path for path in folder.glob("part-000.*") if path.suffix != ".json")


def forget(take: Take) -> None:
    shutil.rmtree(take.folder)
