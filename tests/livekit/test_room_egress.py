"""Rooms that are recorded from the start: `CreateRoom.egress` and a join token's `roomConfig.egress` (5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from livekit import rtc
from livekit.protocol import room as pb

from server.clock import SystemClock
from server.domain.egress import Egress
from server.domain.egress_sources import ParticipantSource, RoomSource, TrackSource
from server.domain.room import Participant, ParticipantKind, ParticipantState, Room, Track
from server.egress.room_egress import room_request, track_path
from server.egress.room_egress_watch import RoomEgressWatch
from server.rooms.journal import RoomJournal
from server.rooms.news import News, NewsKind
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import Eventually
from tests.livekit.stage import BOOTSTRAP, NAMES, OTHER, OTHERS, OWN, PAIRS, Answer, LiveKitStage, Pair

COMPOSITE = {"room": {"layout": "speaker", "file_outputs": [{"filepath": "room"}]}}
PARTICIPANT = {
    "participant": {"preset": "H264_1080P_30", "file_outputs": [{"filepath": "{publisher_identity}"}]}
}
TRACKS = {"tracks": {"filepath": "tracks/t.x", "s3": {"bucket": "b", "secret": "storage-secret"}}}


async def create(stage: LiveKitStage, name: str, egress: Mapping[str, Any], pair: Pair = OWN) -> Answer:
    body = {"name": name, "egress": egress}
    return await stage.ask("RoomService/CreateRoom", body, pair.token({"roomCreate": True}))


async def egresses(stage: LiveKitStage, pair: Pair = OWN) -> tuple[Egress, ...]:
    project_id = next(project for project, one in PAIRS.items() if one is pair)
    async with stage.database.read() as tx:
        return (await tx.egresses.list(project_id)).items


async def rooms(stage: LiveKitStage, pair: Pair = OWN) -> list[str]:
    answer = await stage.ask("RoomService/ListRooms", {}, pair.token({"roomList": True}))
    return [one["name"] for one in answer.json["rooms"]]


class Town:
    """Tells the journal what LiveKit's webhooks would, of a room that is open in LiveKit."""

    def __init__(self, stage: LiveKitStage, name: str, sid: str) -> None:
        self.room = Room(sid, name, None)
        self._journal = RoomJournal(stage.database, OutboxRecorder(lambda: None), NAMES, SystemClock())

    async def tell(self, kind: NewsKind, who: str, track: Track | None = None) -> None:
        state = ParticipantState.ACTIVE
        participant = Participant(f"PA_{who}", who, who, state, ParticipantKind.STANDARD, SystemClock().now())
        news = News(
            kind,
            self.room,
            SystemClock().now(),
            participant if track is None else None,
            participant.sid,
            track,
        )
        await self._journal.take_in([news])


@pytest.mark.parametrize("pair", [OWN, OTHERS], ids=["bootstrap", "other"])
async def test_a_new_room_is_recorded(stage: LiveKitStage, pair: Pair) -> None:
    """The composition starts with the room; LiveKit itself is not told, and another name in the request counts nothing."""
    answer = await create(stage, "new", {"room": {**COMPOSITE["room"], "room_name": "another"}}, pair)
    assert answer.status == 200, answer.body
    (egress,) = await egresses(stage, pair)
    assert (egress.room_name, egress.room_id) == ("new", answer.json["sid"])
    assert egress.plan.source == RoomSource(layout="speaker")
    assert egress.plan.livekit_room == NAMES.prefix(egress.project_id) + "new"


async def test_an_open_room_is_not_recorded_again(stage: LiveKitStage) -> None:
    """Trap 29."""
    assert (await create(stage, "open", {})).status == 200
    assert (await create(stage, "open", COMPOSITE)).status == 200
    assert await egresses(stage) == ()


async def test_what_cannot_be_recorded_opens_no_room(stage: LiveKitStage) -> None:
    """The start's own error fails CreateRoom."""
    answer = await create(stage, "never", {"room": {"file_outputs": [{}, {}]}})
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert answer.json["msg"] == "request has missing or invalid field: multiple file outputs"
    answer = await create(stage, "never", {"participant": {"file_outputs": [{"file_type": "OGG"}]}})
    assert answer.status == 400
    assert "never" not in await rooms(stage)


async def test_participants_and_tracks_as_they_come(stage: LiveKitStage) -> None:
    """One egress for each who publishes, one for each track, once, also after a restart of whoever looks."""
    sid = (await create(stage, "busy", {**PARTICIPANT, **TRACKS})).json["sid"]
    assert await egresses(stage) == ()
    town = Town(stage, "busy", sid)
    watch = RoomEgressWatch(stage.database, stage.api.egress)
    await town.tell(NewsKind.JOINED, "ann")
    await watch.run_once()
    assert await egresses(stage) == ()
    await town.tell(NewsKind.PUBLISHED, "ann", Track("TR_1", "VIDEO", "CAMERA"))
    await town.tell(NewsKind.PUBLISHED, "ann", Track("TR_2", "AUDIO", "MICROPHONE"))
    for looking in (watch, watch, RoomEgressWatch(stage.database, stage.api.egress)):
        await looking.run_once()
    found = await egresses(stage)
    assert {one.plan.source for one in found} == {
        ParticipantSource("ann"), TrackSource("TR_1"), TrackSource("TR_2"),
    }  # fmt: skip
    assert len(found) == 3
    assert {one.plan.outputs.files[0].path for one in found} == {
        "{publisher_identity}",
        "tracks/t-{track_id}.x",
    }
    participant = next(one for one in found if isinstance(one.plan.source, ParticipantSource))
    assert participant.quality == "1080p"
    track = next(one for one in found if isinstance(one.plan.source, TrackSource))
    assert "storage-secret" not in str(track.request)
    async with stage.database.read() as tx:
        assert (await tx.egresses.secrets(track.id)).storages[0].config["secret"] == "storage-secret"


async def test_a_room_that_is_over_is_forgotten(stage: LiveKitStage) -> None:
    sid = (await create(stage, "short", TRACKS)).json["sid"]
    town = Town(stage, "short", sid)
    await town.tell(NewsKind.JOINED, "ann")
    async with stage.database.read() as tx:
        assert [one.room_sid for one in await tx.room_egress.open()] == [sid]
    await town.tell(NewsKind.ROOM_FINISHED, "ann")
    async with stage.database.begin() as tx:
        assert await tx.room_egress.open() == ()
        assert await tx.rooms.purge(before=SystemClock().now()) == 1
        await tx.commit()


@pytest.mark.parametrize(("pair", "project"), [(OWN, BOOTSTRAP), (OTHERS, OTHER)], ids=["bootstrap", "other"])
async def test_a_token_that_opens_a_room(
    stage: LiveKitStage, eventually: Eventually, pair: Pair, project: str
) -> None:
    """`roomConfig.egress`: begun when the room opens with that participant, not for the next one."""
    grants = {"roomJoin": True, "room": "by-token"}
    first = pair.token(grants, sub="ann", roomConfig={"egress": COMPOSITE, "emptyTimeout": 60})
    second = pair.token(grants, sub="bob", roomConfig={"egress": COMPOSITE})
    url = stage.url.replace("http", "ws", 1)
    ann, bob = rtc.Room(), rtc.Room()
    await ann.connect(url, first)
    try:

        async def begun() -> tuple[Egress, ...]:
            return await egresses(stage, pair)

        found = await eventually(begun)
        assert [(one.project_id, one.room_name, one.layout) for one in found] == [
            (project, "by-token", "speaker")
        ]
        await bob.connect(url, second)
        await bob.disconnect()
        assert len(await egresses(stage, pair)) == 1
    finally:
        await ann.disconnect()


async def test_a_token_that_asks_for_what_cannot_be(stage: LiveKitStage) -> None:
    """Neither in nor recorded."""
    grants = {"roomJoin": True, "room": "refused"}
    several: Mapping[str, Any] = {"room": {"file_outputs": [{}, {}]}}
    for egress in (several, {"room": "everything"}):
        token = OWN.token(grants, sub="ann", roomConfig={"egress": egress})
        with pytest.raises(rtc.ConnectError):
            await rtc.Room().connect(stage.url.replace("http", "ws", 1), token)
    assert "refused" not in await rooms(stage)
    assert await egresses(stage) == ()


def test_paths_of_tracks() -> None:
    """5.5: each track needs a name of its own."""
    cases = {
        "": "", "a/": "a/", "{track_id}": "{track_id}", "a.b/t": "a.b/t-{track_id}", "t.x.y": "t-{track_id}.x.y",
    }  # fmt: skip
    assert {path: track_path(path) for path in cases} == cases


def test_the_request_of_a_room_is_a_copy() -> None:
    wanted = pb.RoomEgress()
    wanted.room.room_name = "another"
    assert room_request(wanted, "this").room_name == "this"
    assert wanted.room.room_name == "another"
