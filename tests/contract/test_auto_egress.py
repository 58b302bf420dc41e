"""Automatic egress over both databases: rooms and people as they are remembered, LiveKit as it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import Egress, EgressStatus, Surface
from server.domain.recording import AutoEgress
from server.domain.room import Participant, Room, RoomMemory, RoomSession, Visit
from server.domain.room_names import RoomNames
from server.egress.auto import AutoEgressWatch
from server.egress.board import OrdersBoard
from server.egress.compositions import Compositions
from server.egress.control import EgressControl
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.errors import unavailable
from server.jobs.engine import LeaseJobEngine
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import Eventually
from tests.contract.rows import OTHER, PROJECT, add_projects
from tests.contract.webhook_stage import ManualClock

NAMES = RoomNames(PROJECT)


class NoChanges:
    def start(self, wake: Callable[[], None]) -> None:
        """Nothing is claimed here."""

    async def stop(self) -> None:
        """Nothing runs."""


@dataclass
class Scene:
    """Rooms that come and go by hand, in LiveKit and in memory alike; implements `RoomListing`."""

    database: SqlDatabase
    clock: ManualClock = field(default_factory=ManualClock)
    open: dict[str, str] = field(default_factory=dict)
    away: bool = False
    count: int = 0

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        """Those of `names` that are open."""
        if self.away:
            raise unavailable("LiveKit is away")
        return tuple(Room(sid, name, None) for name, sid in self.open.items() if name in names)

    async def participants(self, name: str) -> tuple[Participant, ...]:
        """Nobody asks."""
        return ()

    def watch(self, every_sec: float = 1.0) -> AutoEgressWatch:
        """One more, as another worker would run it."""
        policy = StoragePolicy(None, local_fallback=True, bootstrap_project_id=PROJECT)
        engine = LeaseJobEngine(self.database, OutboxRecorder(lambda: None), self.clock, NoChanges())
        control = EgressControl(
            self.database, engine, self, StorageChoices(policy), OrdersBoard(), self.clock
        )
        compositions = Compositions(control, NAMES, lambda url, field: None)
        return AutoEgressWatch(self.database, compositions, self.clock, every_sec=every_sec)

    async def rules(self, **changes: Any) -> None:
        rules = AutoEgress(PROJECT, enabled=True, updated_at=self.clock.now())
        async with self.database.begin() as tx:
            await tx.auto_egress.save(replace(rules, **changes))
            await tx.commit()

    async def opens(self, name: str, project: Any = PROJECT) -> str:
        self.count += 1
        sid = f"RM_{self.count}"
        self.open[NAMES.to_livekit(project, name)] = sid
        await self._remember(rooms={sid: RoomSession(sid, project, name, self.clock.now())})
        return sid

    async def closes(self, name: str) -> None:
        sid = self.open.pop(name)
        now = self.clock.now()
        async with self.database.read() as tx:
            visits = await tx.rooms.visits(sid)
        await self._remember(
            rooms={sid: RoomSession(sid, PROJECT, name, now, now)},
            visits={one.sid: replace(one, left_at=now) for one in visits},
        )

    async def joins(self, sid: str, identity: str, *, person: bool = True) -> Visit:
        self.count += 1
        visit = Visit(f"PA_{self.count}", sid, identity, identity, person, self.clock.now())
        await self._remember(visits={visit.sid: visit})
        return visit

    async def leaves(self, visit: Visit) -> None:
        await self._remember(visits={visit.sid: replace(visit, left_at=self.clock.now())})

    async def started(self, project: Any = PROJECT) -> list[Egress]:
        async with self.database.read() as tx:
            return list((await tx.egresses.list(project)).items)

    def later(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    async def _remember(self, **rows: Any) -> None:
        async with self.database.begin() as tx:
            await tx.rooms.remember(RoomMemory(**rows))
            await tx.commit()


@pytest.fixture
async def scene(database: SqlDatabase) -> Scene:
    """Two projects are there."""
    await add_projects(database)
    return Scene(database)


async def test_enough_people_start_it(scene: Scene) -> None:
    """AE-03, AE-04, AE-05, AE-06, AE-13: an ordinary egress."""
    await scene.rules(
        mode="both", layout="speaker", quality="1080p", urls=("rtmp://h/a/k",), min_participants=2
    )
    room, watch = await scene.opens("meeting-1"), scene.watch()
    await scene.joins(room, "ann")
    await scene.joins(room, "recorder", person=False)
    await watch.run_once()
    assert await scene.started() == []
    await scene.joins(room, "bob")
    await watch.run_once()
    (egress,) = await scene.started()
    assert (egress.room_name, egress.room_id, egress.surface) == ("meeting-1", room, Surface.AUTO)
    assert (egress.type, egress.layout, egress.quality) == ("both", "speaker", "1080p")
    assert egress.plan.outputs.streams == "rtmp"
    assert egress.recording_id is not None


async def test_not_before_the_delay(scene: Scene) -> None:
    """AE-07: not at 9 s, at 10 s."""
    await scene.rules(delay_seconds=10)
    room, watch = await scene.opens("r"), scene.watch(every_sec=60)
    await scene.joins(room, "ann")
    assert await watch.run_once() == 10
    scene.later(9)
    assert await watch.run_once() == 1
    assert await scene.started() == []
    scene.later(1)
    await watch.run_once()
    assert len(await scene.started()) == 1


async def test_fewer_people_during_the_delay(scene: Scene) -> None:
    """AE-07."""
    await scene.rules(min_participants=2, delay_seconds=10)
    room, watch = await scene.opens("r"), scene.watch()
    await scene.joins(room, "ann")
    bob = await scene.joins(room, "bob")
    scene.later(5)
    await scene.leaves(bob)
    scene.later(5)
    await watch.run_once()
    assert await scene.started() == []
    await scene.joins(room, "cleo")
    scene.later(9)
    await watch.run_once()
    assert await scene.started() == []
    scene.later(1)
    await watch.run_once()
    assert len(await scene.started()) == 1


async def test_which_rooms(scene: Scene) -> None:
    """AE-08, AE-14: by name, and of the project only."""
    await scene.rules(room_name_pattern="meeting-*", min_participants=0)
    for name, project in (
        ("meeting-42", PROJECT),
        ("standup", PROJECT),
        ("my-meeting-1", PROJECT),
        ("meeting-7", OTHER),
    ):
        await scene.opens(name, project)
    await scene.watch().run_once()
    assert [egress.room_name for egress in await scene.started()] == ["meeting-42"]
    assert await scene.started(OTHER) == []


async def test_disabled_rules_start_nothing(scene: Scene) -> None:
    """AE-02; once enabled they hold for rooms that are open already."""
    await scene.rules(enabled=False)
    room, watch = await scene.opens("r"), scene.watch()
    await scene.joins(room, "ann")
    await watch.run_once()
    assert await scene.started() == []
    await scene.rules()
    await watch.run_once()
    assert len(await scene.started()) == 1


async def test_once_for_each_session_of_a_room(scene: Scene) -> None:
    """AE-13, B-78: not again when it has ended, nor after a restart; but again in the next session."""
    await scene.rules()
    room, watch = await scene.opens("r"), scene.watch()
    await scene.joins(room, "ann")
    await watch.run_once()
    (egress,) = await scene.started()
    async with scene.database.begin() as tx:
        await tx.egresses.save(replace(egress, status=EgressStatus.COMPLETE))
        await tx.commit()
    await watch.run_once()
    await scene.watch().run_once()
    assert len(await scene.started()) == 1
    await scene.closes("r")
    scene.later(1)
    again = await scene.opens("r")
    await scene.joins(again, "ann")
    await watch.run_once()
    assert [one.room_id for one in await scene.started()] == [again, room]


async def test_many_workers_start_one(scene: Scene) -> None:
    """AE-13."""
    await scene.rules()
    await scene.joins(await scene.opens("r"), "ann")
    await asyncio.gather(*(scene.watch().run_once() for _ in range(4)))
    assert len(await scene.started()) == 1


async def test_a_worker_that_comes_late_knows_the_delay(scene: Scene) -> None:
    """Nobody looked while the time ran."""
    await scene.rules(delay_seconds=10)
    await scene.joins(await scene.opens("r"), "ann")
    scene.later(60)
    await scene.watch().run_once()
    assert len(await scene.started()) == 1


async def test_while_livekit_is_away_it_waits(scene: Scene) -> None:
    """The session is not used up by an attempt that failed."""
    await scene.rules()
    await scene.joins(await scene.opens("r"), "ann")
    watch = scene.watch()
    scene.away = True
    await watch.run_once()
    assert await scene.started() == []
    scene.away = False
    await watch.run_once()
    assert len(await scene.started()) == 1


async def test_a_room_opened_anew_in_between(scene: Scene) -> None:
    """What was decided of one session is not done to the next."""
    await scene.rules()
    await scene.joins(await scene.opens("r"), "ann")
    scene.open["r"] = "RM_next"
    watch = scene.watch()
    await watch.run_once()
    assert await scene.started() == []


async def test_a_room_that_must_not_be_recorded(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """B-46: refused, said once, tried again when the rules change."""
    await scene.rules()
    room, watch = await scene.opens("r"), scene.watch()
    await scene.joins(room, "ann")
    async with scene.database.begin() as tx:
        await tx.rooms.settle_recording(room, allowed=False)
        await tx.commit()
    with caplog.at_level(logging.WARNING, "server.egress.auto"):
        for _ in range(3):
            await watch.run_once()
    assert [record.message for record in caplog.records] == [
        f"room {room} gets no automatic egress: this room must not be recorded"
    ]
    scene.later(1)
    await scene.rules(mode="stream", urls=("rtmp://h/a/k",))
    await watch.run_once()
    assert len(await scene.started()) == 1


async def test_it_runs_by_itself(scene: Scene, eventually: Eventually) -> None:
    """What is told wakes it at once, long before the next look would come."""
    await scene.rules()
    watch = scene.watch(every_sec=3600)
    watch.start()
    try:
        await eventually(lambda: not watch.stirred)
        await scene.joins(await scene.opens("r"), "ann")
        watch.stir()
        await eventually(scene.started)
    finally:
        await watch.stop()
