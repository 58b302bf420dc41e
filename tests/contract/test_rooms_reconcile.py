"""When a difference between LiveKit's rooms and those remembered is believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapters.db.unit_of_work import SqlDatabase
from server.clock import SystemClock
from server.domain.room import Participant, Room
from server.rooms.journal import RoomJournal
from server.rooms.reconcile import ReconcilePace, Reconciler, RoomView
from server.webhooks.recorder import OutboxRecorder
from tests.unit.rooms.scenes import NAMES
from tests.unit.rooms.test_reconcile import ROOM, person


class Scripted:
    """A LiveKit whose looks are given in advance; the last one stays."""

    def __init__(self, looks: Iterable[Sequence[RoomView]]) -> None:
        self._looks = list(looks)
        self._now: Sequence[RoomView] = ()

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        if self._looks:
            self._now = self._looks.pop(0)
        return tuple(view.room for view in self._now)

    async def participants(self, name: str) -> tuple[Participant, ...]:
        return next(view.participants for view in self._now if view.room.name == name)


async def told_by(database: SqlDatabase, *looks: Sequence[RoomView]) -> int:
    clock = SystemClock()
    journal = RoomJournal(database, OutboxRecorder(lambda: None), NAMES, clock)
    reconciler = Reconciler(
        database,
        Scripted(looks),
        journal,
        clock,
        ReconcilePace(confirm_after_sec=0),
    )
    return await reconciler.run_once()


async def test_a_difference_counts_when_it_is_there_twice(database: SqlDatabase) -> None:
    """A listing may lag behind the webhooks, and webhooks behind a listing."""
    alice, both = RoomView(ROOM, (person("alice"),)), RoomView(ROOM, (person("alice"), person("bob")))
    assert await told_by(database, [alice]) == 2
    assert await told_by(database, [alice]) == 0
    assert await told_by(database, [both], [alice]) == 0
    assert await told_by(database, [], [alice]) == 0
    assert await told_by(database, [RoomView(ROOM, ())], [alice]) == 0
    assert await told_by(database, [both], [both]) == 1
    assert await told_by(database, [], [RoomView(ROOM, ())]) == 0
    assert await told_by(database, [], []) == 3
    assert await told_by(database, [both], [both]) == 0, "what has ended stays ended"
