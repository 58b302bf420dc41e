"""What is remembered of rooms, the same on SQLite and on PostgreSQL, whoever tells it at the same time."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from datetime import timedelta

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.clock import SystemClock
from server.domain.room import Room, RoomMemory, RoomScope
from server.domain.room_names import RoomNames
from server.rooms.journal import RoomJournal
from server.rooms.news import News
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import OpenDatabase
from tests.contract.rows import (
    NOW,
    OTHER,
    PROJECT,
    add_endpoints,
    add_projects,
    claim,
    endpoint,
    finish,
    outcome,
)
from tests.unit.rooms.scenes import news

NAMES = RoomNames(PROJECT)
CALL = (
    news("room_started"),
    news("participant_joined", who="alice"),
    news("track_published", who="alice", track="a1"),
    news("participant_joined", who="bob"),
    news("track_unpublished", who="alice", track="a1"),
    news("participant_left", who="alice"),
    news("participant_left", who="bob"),
    news("room_finished"),
)
TOLD = Counter(
    {
        ("room.started", "RM_1"): 1,
        ("participant.joined", "PA_alice"): 1,
        ("participant.joined", "PA_bob"): 1,
        ("track.published", "TR_a1"): 1,
        ("track.unpublished", "TR_a1"): 1,
        ("participant.left", "PA_alice"): 1,
        ("participant.left", "PA_bob"): 1,
        ("room.finished", "RM_1"): 1,
    }
)


def journal(database: SqlDatabase) -> RoomJournal:
    return RoomJournal(database, OutboxRecorder(lambda: None), NAMES, SystemClock())


@pytest.fixture
async def db(database: SqlDatabase) -> SqlDatabase:
    await add_projects(database)
    return database


async def told(database: SqlDatabase) -> list[tuple[str, str]]:
    """The core events in the outbox, in their order."""

    def look(connection: object) -> list[tuple[str, str]]:
        rows = connection.exec_driver_sql(  # type: ignore[attr-defined]
            "SELECT e.body FROM deliveries d JOIN events e ON e.id = d.event_id ORDER BY d.sequence"
        ).all()
        bodies = [json.loads(bytes(row[0])) for row in rows]
        return [(body["event"], body["data"]["sid"]) for body in bodies]

    async with database.read() as tx:
        return await tx.run_sync(look)


async def test_a_call_is_remembered_and_told_in_order(db: SqlDatabase) -> None:
    await add_endpoints(db, endpoint("wh_1", events=("room.*", "participant.*", "track.*")))
    for one in CALL:
        await journal(db).take_in([one])

    events = await told(db)
    assert Counter(events) == TOLD
    assert events[0] == ("room.started", "RM_1")
    assert events[-1] == ("room.finished", "RM_1")
    async with db.read() as tx:
        assert await tx.rooms.present() == RoomMemory()


async def test_the_other_project_hears_nothing(db: SqlDatabase) -> None:
    """WH-51"""
    await add_endpoints(db, endpoint("wh_1", OTHER, events=("*",)))
    await journal(db).take_in(CALL)
    assert await told(db) == []

    await journal(db).take_in([news("room_started", sid="RM_2", room=f"bax:{OTHER}:team")])
    assert await told(db) == [("room.started", "RM_2")]
    [delivery] = await claim(db, SystemClock().now() + timedelta(seconds=1))
    assert json.loads(delivery.event.body)["data"]["roomName"] == "team"
    assert b"bax:" not in delivery.event.body


async def test_rtcstack_shapes_go_to_those_who_ask_by_name(db: SqlDatabase) -> None:
    """B-67: flat objects beside the canonical events; `*` does not ask for them."""
    await add_endpoints(
        db,
        endpoint("wh_all", events=("*",)),
        endpoint(
            "wh_flat", events=("room_created", "participant_joined", "track_published", "room_finished")
        ),
    )
    await journal(db).take_in(CALL)
    flat = []
    for _ in CALL:
        for delivery in await claim(db, SystemClock().now() + timedelta(seconds=1)):
            assert (delivery.event.family == "rtcstack") is (delivery.endpoint_id == "wh_flat")
            if delivery.endpoint_id == "wh_flat":
                flat.append(json.loads(delivery.event.body))
            await finish(db, outcome(delivery, SystemClock().now(), delivered=True))
    assert [one["event"] for one in flat] == [
        "room_created",
        "participant_joined",
        "track_published",
        "participant_joined",
        "room_finished",
    ]
    assert flat[1] == {
        "event": "participant_joined",
        "roomId": "team",
        "roomSid": "RM_1",
        "identity": "alice",
        "name": "Alice",
        "sid": "PA_alice",
        "joinedAt": "2026-03-29T14:28:30Z",
    }


async def test_many_tellers_at_once_tell_once(db: SqlDatabase, open_again: OpenDatabase) -> None:
    """Webhooks of two processes and reconciliation race; each change is announced by the first."""
    await add_endpoints(db, endpoint("wh_1", events=("*",)))
    others = [db, await open_again(), await open_again()]
    rooms = [f"RM_{n}" for n in range(4)]
    calls = {
        sid: [
            news("room_started", sid=sid),
            news("participant_joined", sid=sid, who=f"{sid}-a"),
            news("participant_joined", sid=sid, who=f"{sid}-b"),
            news("participant_left", sid=sid, who=f"{sid}-b"),
            news("room_finished", sid=sid),
        ]
        for sid in rooms
    }

    async def tell(teller: int) -> None:
        chance = random.Random(teller)
        everything = [one for call in calls.values() for one in call]
        chance.shuffle(everything)
        while everything:
            batch: list[News] = [everything.pop() for _ in range(min(3, len(everything)))]
            await journal(others[teller % 3]).take_in(batch)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(tell, range(6)))

    counts = Counter(await told(db))
    assert set(counts.values()) == {1}
    assert Counter(event for event, _ in counts) == {
        "room.started": 4,
        "participant.joined": 8,
        "participant.left": 8,
        "room.finished": 4,
    }


async def test_state_and_events_commit_or_vanish_together(db: SqlDatabase) -> None:
    class Failing(OutboxRecorder):
        async def record_all(self, tx: object, events: object) -> None:
            raise LookupError

    broken = RoomJournal(db, Failing(lambda: None), NAMES, SystemClock())
    with pytest.raises(LookupError):
        await broken.take_in(CALL[:2])
    async with db.read() as tx:
        assert await tx.rooms.present() == RoomMemory()


async def test_recall_gives_what_the_scope_says(db: SqlDatabase) -> None:
    await journal(db).take_in(CALL[:4])
    async with db.begin() as tx:
        nothing = await tx.rooms.recall(RoomScope(frozenset({"RM_9"})))
        room = await tx.rooms.recall(RoomScope(frozenset({"RM_1"})))
        visit = await tx.rooms.recall(RoomScope(frozenset({"RM_1"}), visits=frozenset({"PA_alice"})))
        whole = await tx.rooms.recall(RoomScope(frozenset({"RM_1"}), finishing=frozenset({"RM_1"})))
    assert nothing == RoomMemory()
    assert (set(room.rooms), set(room.visits)) == ({"RM_1"}, set())
    assert (set(visit.visits), set(visit.publications)) == ({"PA_alice"}, {"TR_a1"})
    assert (set(whole.visits), set(whole.publications)) == ({"PA_alice", "PA_bob"}, {"TR_a1"})


async def test_the_first_to_say_decides_about_recording(db: SqlDatabase) -> None:
    """B-46; a room that nobody created through us has no setting."""
    book = journal(db)
    await book.take_in([news("room_started", sid="RM_auto")])
    await book.created(Room("RM_1", "team", NOW), enable_recording=False)
    await book.created(Room("RM_1", "team", NOW), enable_recording=True)
    async with db.read() as tx:
        assert await tx.rooms.recording_settings(["RM_1", "RM_auto", "RM_none"]) == {"RM_1": False}
    await book.created(Room("RM_auto", "team", NOW), enable_recording=True)
    async with db.read() as tx:
        assert await tx.rooms.recording_settings(["RM_auto"]) == {"RM_auto": True}


async def test_what_is_over_is_forgotten_after_a_while(db: SqlDatabase) -> None:
    await journal(db).take_in([*CALL, news("room_started", sid="RM_2"), *STILL_HERE])
    later = SystemClock().now() + timedelta(days=1)
    async with db.begin() as tx:
        assert await tx.rooms.purge(before=NOW - timedelta(days=100)) == 0
        assert await tx.rooms.purge(before=later) == 1
        await tx.commit()
    async with db.begin() as tx:
        left = await tx.rooms.recall(
            RoomScope(
                frozenset({"RM_1", "RM_2"}),
                visits=frozenset({"PA_alice", "PA_carol", "PA_dave"}),
                publications=frozenset({"TR_a1", "TR_c1"}),
            )
        )
    assert (set(left.rooms), set(left.visits), set(left.publications)) == ({"RM_2"}, {"PA_carol"}, {"TR_c1"})


STILL_HERE = (
    news("participant_joined", sid="RM_2", who="carol"),
    news("track_published", sid="RM_2", who="carol", track="c1"),
    news("participant_joined", sid="RM_2", who="dave"),
    news("participant_left", sid="RM_2", who="dave"),
)
