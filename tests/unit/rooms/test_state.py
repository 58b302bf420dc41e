"""What news of rooms change and announce: each thing once, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.room import RoomMemory, RoomScope
from server.rooms.announcements import event_data
from server.rooms.news import News
from server.rooms.state import Announcement, scope_of, take_in
from tests.unit.rooms.scenes import NAMES, NOW, OTHER, news

# A call with two people, a recorder and an ingress, as LiveKit tells it.
CALL = (
    news("room_started"),
    news("participant_joined", who="alice"),
    news("track_published", who="alice", track="a1"),
    news("participant_joined", who="EG_1", kind="EGRESS", hidden=True, recorder=True),
    news("participant_joined", who="obs", kind="INGRESS"),
    news("track_published", who="obs", track="o1"),
    news("participant_joined", who="bob"),
    news("track_published", who="bob", track="b1"),
    news("track_unpublished", who="bob", track="b1"),
    news("track_published", who="bob", track="b2"),
    news("track_unpublished", who="bob", track="b2"),
    news("participant_left", who="bob"),
    news("track_unpublished", who="obs", track="o1"),
    news("participant_left", who="obs", kind="INGRESS"),
    news("track_unpublished", who="alice", track="a1"),
    news("participant_left", who="alice"),
    news("participant_left", who="EG_1", kind="EGRESS", hidden=True, recorder=True),
    news("room_finished"),
)
TOLD = [
    ("room.started", "RM_1"),
    ("participant.joined", "PA_alice"),
    ("track.published", "TR_a1"),
    ("participant.joined", "PA_bob"),
    ("track.published", "TR_b1"),
    ("track.unpublished", "TR_b1"),
    ("track.published", "TR_b2"),
    ("track.unpublished", "TR_b2"),
    ("participant.left", "PA_bob"),
    ("track.unpublished", "TR_a1"),
    ("participant.left", "PA_alice"),
    ("room.finished", "RM_1"),
]


class Memory:
    """Keeps rows as the database does, and gives out only what is asked for."""

    def __init__(self) -> None:
        self.rows = RoomMemory({}, {}, {})

    def take_in(self, batch: Sequence[News]) -> list[Announcement]:
        outcome = take_in(self._recall(scope_of(batch)), batch, NAMES)
        changed = outcome.changed
        self.rows = RoomMemory(
            {**self.rows.rooms, **changed.rooms},
            {**self.rows.visits, **changed.visits},
            {**self.rows.publications, **changed.publications},
        )
        return list(outcome.announcements)

    def _recall(self, scope: RoomScope) -> RoomMemory:
        visits = {
            sid: row
            for sid, row in self.rows.visits.items()
            if sid in scope.visits or (row.room_sid in scope.finishing and row.left_at is None)
        }
        publications = {
            sid: row
            for sid, row in self.rows.publications.items()
            if sid in scope.publications
            or (
                row.participant_sid in {*visits, *scope.visits}
                and (row.unpublished_at is None or not row.announced)
            )
        }
        rooms = {sid: row for sid, row in self.rows.rooms.items() if sid in scope.rooms}
        return RoomMemory(rooms, visits, publications)


def told(announcements: Sequence[Announcement]) -> list[tuple[str, object]]:
    return [(one.kind.value, event_data(one, now=NOW)["sid"]) for one in announcements]


def test_a_call_is_told_in_order() -> None:
    """WH-13, WH-14, WH-15, WH-16, WH-17, WH-18, E.4: people only, each thing once."""
    assert told(Memory().take_in(CALL)) == TOLD


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[News]]:
    """Every news of the call at least once, in any order, any number of times, cut into any batches."""
    repeats = draw(st.lists(st.sampled_from(CALL), max_size=12))
    order = draw(st.permutations([*CALL, *repeats]))
    batches: list[list[News]] = [[]]
    for one in order:
        cut: bool = draw(st.booleans())
        if batches[-1] and cut:
            batches.append([])
        batches[-1].append(one)
    return batches


@settings(max_examples=400, deadline=None)
@given(deliveries())
def test_order_and_repetition_change_nothing(batches: list[list[News]]) -> None:
    """Duplicates and reorderings: the same events, once each; nobody leaves before having come."""
    memory = Memory()
    heard = told([one for batch in batches for one in memory.take_in(batch)])

    assert Counter(heard) == Counter(TOLD)
    assert heard[0] == ("room.started", "RM_1")
    for begin, end in (("participant.joined", "participant.left"), ("track.published", "track.unpublished")):
        for sid in {sid for kind, sid in heard if kind == begin}:
            assert heard.index((begin, sid)) < heard.index((end, sid))
    for kind, sid in heard:
        if kind.startswith("track."):
            owner = {"a": "PA_alice", "b": "PA_bob"}[str(sid)[3]]
            assert heard.index(("participant.joined", owner)) < heard.index((kind, sid))


@settings(max_examples=200, deadline=None)
@given(st.permutations(CALL[:-1]).flatmap(lambda order: st.integers(0, len(order)).map(lambda n: order[:n])))
def test_whatever_was_missed_ends_with_the_room(heard: list[News]) -> None:
    """Any part of the call in any order, then the end of the room: every join that was told has its leave."""
    memory = Memory()
    events = told(memory.take_in([*heard, CALL[-1]]))

    count = Counter(kind for kind, _ in events)
    assert count["participant.joined"] == count["participant.left"]
    assert count["track.published"] == count["track.unpublished"]
    assert (count["room.started"], count["room.finished"]) == (1, 1)
    assert all(row.left_at for row in memory.rows.visits.values())
    assert told(memory.take_in([*heard, CALL[-1]])) == []


def test_leaving_before_joining_tells_both() -> None:
    memory = Memory()
    memory.take_in([news("room_started")])

    both = memory.take_in([news("participant_left", who="alice")])
    assert [(one.kind.value, one.noticed) for one in both] == [
        ("participant.joined", True),
        ("participant.left", False),
    ]
    assert memory.take_in([news("participant_joined", who="alice")]) == []


def test_a_track_waits_for_its_participant() -> None:
    """LiveKit names only sid and identity with a track, so whether it is a person's is known later."""
    memory = Memory()
    assert told(memory.take_in([news("track_published", who="alice", track="a1")])) == [
        ("room.started", "RM_1")
    ]
    assert told(memory.take_in([news("participant_joined", who="alice")])) == [
        ("participant.joined", "PA_alice"),
        ("track.published", "TR_a1"),
    ]


def test_one_who_never_became_active_is_never_told() -> None:
    memory = Memory()
    aborted = [news("room_started"), news("track_published", who="ghost", track="g1"), news("room_finished")]
    assert told(memory.take_in(aborted)) == [("room.started", "RM_1"), ("room.finished", "RM_1")]


@pytest.mark.parametrize(
    ("kind", "permission"),
    [("EGRESS", {}), ("INGRESS", {}), ("AGENT", {}), ("", {"recorder": True}), ("", {"hidden": True})],
)
def test_machines_are_no_people(kind: str, permission: dict[str, bool]) -> None:
    """E.4"""
    events = Memory().take_in(
        [
            news("room_started"),
            news("participant_joined", who="x", kind=kind, **permission),
            news("track_published", who="x", track="x1"),
            news("track_unpublished", who="x", track="x1"),
            news("participant_left", who="x", kind=kind, **permission),
        ]
    )
    assert told(events) == [("room.started", "RM_1")]


@pytest.mark.parametrize("kind", ["", "STANDARD", "SIP", "CONNECTOR", "SOMETHING_NEW"])
def test_callers_of_all_ways_are_people(kind: str) -> None:
    assert len(Memory().take_in([news("participant_joined", who="x", kind=kind)])) == 2


def test_rooms_go_to_their_owners() -> None:
    """Design section 10: the prefix of other projects shows nowhere."""
    [started] = Memory().take_in([news("room_started", room=f"bax:{OTHER}:team/ü: 1")])
    assert (started.room.project_id, started.room.name) == (OTHER, "team/ü: 1")
    assert event_data(started, now=NOW) == {
        "roomName": "team/ü: 1",
        "sid": "RM_1",
        "startedAt": "2026-03-29T14:28:20Z",
    }
