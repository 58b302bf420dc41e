"""What a look at LiveKit shows beyond what is remembered."""

from __future__ import annotations

from dataclasses import replace

from server.domain.room import (
    Participant,
    ParticipantKind,
    ParticipantState,
    Publication,
    Room,
    RoomMemory,
    RoomSession,
    Track,
    Visit,
)
from server.rooms.reconcile import RoomView, differences
from tests.unit.rooms.scenes import NOW, PROJECT

ROOM = Room("RM_1", "team", NOW)
CAM = Track("TR_1", "VIDEO", "CAMERA", "cam")
KNOWN = RoomMemory(
    {"RM_1": RoomSession("RM_1", PROJECT, "team", NOW)},
    {"PA_alice": Visit("PA_alice", "RM_1", "alice", "Alice", True, NOW)},
    {"TR_1": Publication("TR_1", "RM_1", "PA_alice", "VIDEO", "CAMERA", "cam", True)},
)


def person(identity: str, *tracks: Track, state: ParticipantState = ParticipantState.ACTIVE) -> Participant:
    return Participant(
        f"PA_{identity}", identity, identity.title(), state, ParticipantKind.STANDARD, NOW, tracks=tracks
    )


def found(known: RoomMemory, *views: RoomView) -> list[tuple[str, str]]:
    news = differences(known, views, now=NOW)
    assert all(one.noticed for one in news)
    return [(one.kind.value, one.subject) for one in news]


def test_nothing_new() -> None:
    assert found(KNOWN, RoomView(ROOM, (person("alice", CAM),))) == []
    assert found(RoomMemory()) == []


def test_what_began() -> None:
    assert found(RoomMemory(), RoomView(ROOM, (person("alice", CAM),))) == [
        ("room.started", "RM_1"),
        ("participant.joined", "PA_alice"),
        ("track.published", "TR_1"),
    ]


def test_whoever_is_not_active_yet_has_not_joined() -> None:
    """LiveKit tells of a join when a participant is ACTIVE; one who never gets there was never in the room."""
    for state in set(ParticipantState) - {ParticipantState.ACTIVE}:
        late = replace(person("bob"), state=state)
        assert found(KNOWN, RoomView(ROOM, (person("alice", CAM), late))) == []


def test_what_ended() -> None:
    assert found(KNOWN, RoomView(ROOM, (person("alice"),))) == [("track.unpublished", "TR_1")]
    assert found(KNOWN, RoomView(ROOM, ())) == [
        ("track.unpublished", "TR_1"),
        ("participant.left", "PA_alice"),
    ]
    gone = person("alice", CAM, state=ParticipantState.DISCONNECTED)
    assert found(KNOWN, RoomView(ROOM, (gone,))) == [("participant.left", "PA_alice")]


def test_a_room_that_ended_takes_everybody_with_it() -> None:
    assert found(KNOWN) == [("room.finished", "RM_1")]


def test_a_room_opened_anew_ends_before_it_begins() -> None:
    again = replace(ROOM, sid="RM_2")
    assert found(KNOWN, RoomView(again, (person("bob"),))) == [
        ("room.finished", "RM_1"),
        ("room.started", "RM_2"),
        ("participant.joined", "PA_bob"),
    ]
