"""What captures run with in tests: recorders that do what a script says, and a LiveKit that has the rooms it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

from server.domain.room import Participant, Room
from server.errors import unavailable
from server.ports.livekit import LiveKitAddress, LiveKitStatus
from server.ports.recorder import (
    Active,
    Ended,
    Finish,
    Finished,
    FromRecorder,
    Join,
    Joined,
    Measured,
    NewOrders,
    RecorderDied,
    RecorderPlan,
    ToRecorder,
)

ROOM = "my-live-room"
SID = "RM_first"
SECOND = 1_000_000_000
BEGAN = 1_800_000_000 * SECOND


class ScriptedRecorder:
    """A `RecorderProcess` that says what the test says, and ends when it is told to unless it is `stubborn`."""

    def __init__(self, plan: RecorderPlan, *, stubborn: bool) -> None:
        self.plan = plan
        self.told: list[ToRecorder] = []
        self.killed = False
        self._stubborn = stubborn
        self._lines: asyncio.Queue[FromRecorder | None] = asyncio.Queue()

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder)

    def says(self, *reports: FromRecorder) -> None:
        for report in reports:
            self._lines.put_nowait(report)

    def dies(self) -> None:
        self._lines.put_nowait(None)

    def records(self, seconds: float, *, at: int, content: str = "media") -> None:
        """Goes into the room and records; its part is `content`, and how long it is."""
        (self.folder / f"part-{self.plan.part:03d}.{self.plan.container or 'mp4'}").write_text(
            json.dumps([content, seconds])
        )
        self.says(Joined(SID), Active(at), Measured(round(seconds * 1000), composed=round(30 * seconds)))

    def orders(self) -> list[NewOrders]:
        return [order for order in self.told if isinstance(order, NewOrders)]

    async def send(self, order: ToRecorder) -> None:
        if self.killed:
            raise RecorderDied("it was killed")
        self.told.append(order)
        if isinstance(order, Finish) and not self._stubborn:
            self.says(Ended("stopped", ended_at=BEGAN + 60 * SECOND))

    async def reports(self) -> AsyncIterator[FromRecorder]:
        while (report := await self._lines.get()) is not None:
            yield report
            if isinstance(report, Ended):
                return
        raise RecorderDied("signal 9")

    async def kill(self) -> None:
        self.killed = True
        self.dies()


class ScriptedRecorders:
    """`Recorders` that hands each new process to the test."""

    def __init__(self) -> None:
        self.started: list[ScriptedRecorder] = []
        self.stubborn = False
        self.broken = False
        self._news = asyncio.Condition()

    async def start(self, plan: RecorderPlan) -> ScriptedRecorder:
        if self.broken:
            raise RecorderDied("no such program")
        recorder = ScriptedRecorder(plan, stubborn=self.stubborn)
        async with self._news:
            self.started.append(recorder)
            self._news.notify_all()
        return recorder

    async def number(self, index: int) -> ScriptedRecorder:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: len(self.started) > index)
        return self.started[index]

    async def aclose(self) -> None: ...


class ScriptedMuxer:
    """`RecordingMuxer` of the scripted parts."""

    async def finish(self, parts: Sequence[Path], target: Path, container: str) -> Finished:
        at, joins = 0, []
        contents = []
        for index, path in enumerate(parts):
            with suppress(ValueError):
                content, seconds = json.loads(path.read_text())
                contents.append(content)
                joins.append(Join(index, at, round(seconds * 1000)))
                at += round(seconds * 1000)
        if not joins:
            raise ValueError("there is no media")
        target.write_text("+".join(contents))
        return Finished(at, tuple(joins))


class OpenRooms:
    """`RoomListing` and `LiveKitSource`: rooms by name, or a LiveKit that does not answer."""

    def __init__(self) -> None:
        self.sids = {ROOM: SID}
        self.people: tuple[Participant, ...] = ()
        self.away = False

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        self._answer()
        return tuple(Room(sid, name, None) for name, sid in self.sids.items() if name in names)

    async def participants(self, name: str) -> tuple[Participant, ...]:
        return self.people

    async def address(self) -> LiveKitAddress:
        self._answer()
        return LiveKitAddress("http://127.0.0.1:7880", "ws://127.0.0.1:7880", "APIkey", "s" * 32)

    async def status(self) -> LiveKitStatus:
        return LiveKitStatus(True, None, None, None, None)

    def _answer(self) -> None:
        if self.away:
            raise unavailable("LiveKit does not answer", retry_after_sec=1)


def at(seconds: float) -> int:
    """Nanoseconds of a moment after the beginning."""
    return BEGAN + round(seconds * SECOND)
