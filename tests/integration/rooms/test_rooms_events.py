"""What happens in rooms of a real livekit-server is announced, each thing once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.errors import Code, ServiceError
from tests.conftest import Eventually
from tests.integration.rooms.stage import OTHERS, RoomStage, room_stage
from tests.integration.rooms.test_rooms_service import machine_token
from tests.servers.livekit import livekit_server
from tests.servers.loopback import held_port
from tests.transport.surface import OTHER_PROJECT, PROJECT


@contextlib.asynccontextmanager
async def publishing(visit: Any, name: str = "cam") -> AsyncIterator[Any]:
    """A moving picture of one participant while the block lasts; the publication is given."""
    from livekit import rtc

    source = rtc.VideoSource(160, 120)
    track = rtc.LocalVideoTrack.create_video_track(name, source)

    async def feed() -> None:
        shade = 0
        while True:
            shade = (shade + 8) % 256
            frame = bytes([shade, 80, 160, 255]) * (160 * 120)
            source.capture_frame(rtc.VideoFrame(160, 120, rtc.VideoBufferType.RGBA, frame))
            await asyncio.sleep(0.1)

    feeding = asyncio.create_task(feed())
    try:
        yield await visit.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA)
        )
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await source.aclose()


async def test_a_call(stage: RoomStage) -> None:
    """From creation to deletion through webhooks alone: in order, people only, with the keys of the contract.

    WH-13, WH-14, WH-15, WH-16, WH-17, WH-18, WH-21, WH-47, WH-48, RM-11, RM-13, RM-14.
    """
    async with stage.hear():
        made = (await stage.rest("POST", "/v1/rooms", {"name": "a call/ü"})).reply
        alice = await stage.join("a call/ü", "alice", participantName="Alice")
        await stage.connect(machine_token(stage, "a call/ü", "EG_rec", "egress", hidden=True))
        await stage.connect(machine_token(stage, "a call/ü", "obs", "ingress"))
        bob = await stage.join("a call/ü", "bob")

        async def both_there() -> bool:
            names = await stage.names_told("a call/ü")
            return {("participant.joined", "alice"), ("participant.joined", "bob")} <= set(names)

        await stage.eventually(both_there)
        async with publishing(alice) as publication:
            await stage.eventually(lambda: tells(stage, "a call/ü", "track.published"))
            await alice.local_participant.unpublish_track(publication.sid)
        await stage.eventually(lambda: tells(stage, "a call/ü", "track.unpublished"))
        await bob.disconnect()
        await stage.eventually(lambda: tells(stage, "a call/ü", "participant.left"))
        await stage.rest("DELETE", "/v1/rooms/a%20call%2F%C3%BC")
        await stage.eventually(lambda: tells(stage, "a call/ü", "room.finished"))

    events = await stage.told("a call/ü")
    assert [(one["event"], one["data"].get("identity")) for one in events] == [
        ("room.started", None),
        ("participant.joined", "alice"),
        ("participant.joined", "bob"),
        ("track.published", "alice"),
        ("track.unpublished", "alice"),
        ("participant.left", "bob"),
        ("participant.left", "alice"),
        ("room.finished", None),
    ]
    for event in events:
        assert event.keys() == {"event", "timestamp", "data", "eventId", "projectId"}
        assert event["projectId"] == PROJECT
        assert "noticedAt" not in event["data"]
    started, joined, published, finished = events[0], events[1], events[3], events[-1]
    assert started["data"].keys() == {"roomName", "sid", "startedAt"}
    assert started["data"]["sid"] == made["sid"]
    assert joined["data"].keys() == {"roomName", "roomSid", "identity", "name", "sid", "joinedAt"}
    assert joined["data"]["name"] == "Alice"
    assert {key: published["data"][key] for key in ("type", "source", "trackName", "participantSid")} == {
        "type": "VIDEO",
        "source": "CAMERA",
        "trackName": "cam",
        "participantSid": joined["data"]["sid"],
    }
    assert finished["data"].keys() == {"roomName", "sid", "startedAt", "finishedAt"}
    assert events[-3]["data"]["reason"] == "CLIENT_INITIATED"
    assert events[-2]["data"]["reason"] == "ROOM_DELETED"


async def test_an_empty_room_closes(stage: RoomStage) -> None:
    """RM-05, RM-14: after its timeout, whether somebody was in it or nobody ever came."""
    async with stage.hear():
        for name in ("never", "left"):
            await stage.rest("POST", "/v1/rooms", {"name": name, "emptyTimeout": 1})
        visit = await stage.join("left", "alice")
        await visit.disconnect()
        for name in ("never", "left"):
            await stage.eventually(partial(tells, stage, name, "room.finished"), within=40)
        assert (await stage.rest("GET", "/v1/rooms/left")).status == 404


async def test_each_project_hears_its_own(stage: RoomStage) -> None:
    """WH-51, design section 10: two calls under one name."""
    async with stage.hear():
        await stage.join("twin", "mine")
        await stage.join("twin", "theirs", OTHERS)
        await stage.eventually(lambda: tells(stage, "twin", "participant.joined"))
        await stage.eventually(lambda: tells(stage, "twin", "participant.joined", OTHER_PROJECT))
    assert await stage.names_told("twin") == [("room.started", "twin"), ("participant.joined", "mine")]
    assert await stage.names_told("twin", OTHER_PROJECT) == [
        ("room.started", "twin"),
        ("participant.joined", "theirs"),
    ]
    assert "bax:" not in str(await stage.told("twin", OTHER_PROJECT))


async def test_what_nobody_told_is_noticed_once(stage: RoomStage) -> None:
    """Our server is away while people come and go; then reconciliation and webhooks together tell each thing once."""
    await stage.join("away", "alice")
    async with stage.hear():
        await stage.reconciler.run_once()
        await stage.eventually(lambda: tells(stage, "away", "participant.joined"))
    # Nobody listens from here.
    alice = stage.visits[0]
    bob = await stage.join("away", "bob")
    await stage.join("away", "carol")
    await stage.join("away elsewhere", "dave")
    await alice.disconnect()
    await bob.disconnect()
    async with publishing(stage.visits[2]):
        stage.reconciler.start()
        try:
            async with stage.hear():
                await stage.eventually(lambda: tells(stage, "away", "track.published"))
                await stage.eventually(lambda: tells(stage, "away elsewhere", "participant.joined"))
                await stage.eventually(lambda: tells(stage, "away", "participant.left"))
                # LiveKit sends again what it could not deliver: 1, 2, 4 s after the first try.
                await stage.eventually(lambda: tells(stage, "away", "participant.left", count=2), within=30)
        finally:
            await stage.reconciler.stop()

    counts = Counter(await stage.names_told("away"))
    assert counts == {
        ("room.started", "away"): 1,
        ("participant.joined", "alice"): 1,
        ("participant.joined", "bob"): 1,
        ("participant.joined", "carol"): 1,
        ("participant.left", "alice"): 1,
        ("participant.left", "bob"): 1,
        ("track.published", "carol"): 1,
    }


async def test_rooms_that_ended_while_nobody_listened(stage: RoomStage) -> None:
    """Those who were in it leave, then it finishes: marked with when that was noticed."""
    await stage.join("gone", "alice")
    await stage.join("stays", "bob")
    async with publishing(stage.visits[0]):
        await stage.eventually(lambda: noticing(stage, "gone", "track.published"))
        await stage.rest("DELETE", "/v1/rooms/gone")
        await stage.eventually(lambda: noticing(stage, "gone", "room.finished"))
    assert await stage.names_told("gone") == [
        ("room.started", "gone"),
        ("participant.joined", "alice"),
        ("track.published", "alice"),
        ("track.unpublished", "alice"),
        ("participant.left", "alice"),
        ("room.finished", "gone"),
    ]
    assert all("noticedAt" in event["data"] for event in await stage.told("gone"))
    assert await stage.names_told("stays") == [("room.started", "stays"), ("participant.joined", "bob")]
    assert await stage.reconciler.run_once() == 0


async def test_several_workers_reconcile(stage: RoomStage) -> None:
    for number in range(5):
        await stage.join(f"many {number % 2}", f"p{number}")

    async def all_are_active() -> bool:
        found = [await stage.rest("GET", f"/v1/rooms/many%20{number}/participants") for number in range(2)]
        return [one["state"] for answer in found for one in answer.reply["items"]] == ["ACTIVE"] * 5

    # LiveKit may hear of it after them.
    await stage.eventually(all_are_active)
    await asyncio.gather(*(stage.reconciler.run_once() for _ in range(4)))
    counts = Counter(await stage.names_told("many 0") + await stage.names_told("many 1"))
    assert set(counts.values()) == {1}
    assert len(counts) == 7


async def test_livekit_killed_and_started_again(
    sqlite_database: SqlDatabase, hook_port: int, tmp_path: Path, eventually: Eventually
) -> None:
    """Nothing is concluded while it does not answer; then its old rooms have ended, and new ones begin."""
    with livekit_server(tmp_path) as server:
        async with room_stage(sqlite_database, server.address, hook_port, eventually) as stage:
            await stage.join("restart", "alice")
            await stage.eventually(lambda: noticing(stage, "restart", "participant.joined"))
            server.kill()
            with pytest.raises(ServiceError, match="cannot be reached") as caught:
                await stage.reconciler.run_once()
            assert caught.value.code is Code.UNAVAILABLE
            assert await stage.names_told("restart") == [
                ("room.started", "restart"),
                ("participant.joined", "alice"),
            ]
            await asyncio.to_thread(server.start)
            await stage.eventually(lambda: noticing(stage, "restart", "room.finished"))
            await stage.join("restart", "bob")
            await stage.eventually(lambda: noticing(stage, "restart", "participant.joined", count=2))

            events = await stage.told("restart")
            counts = Counter((one["event"], one["data"]["sid"]) for one in events)
            assert set(counts.values()) == {1}
            names = await stage.names_told("restart")
            end = names.index(("room.finished", "restart"))
            assert names[2:end] == [("participant.left", "alice")]
            assert names[end + 1] == ("room.started", "restart")
            assert ("participant.joined", "bob") in names[end:]


async def test_events_that_livekit_dropped(
    sqlite_database: SqlDatabase, tmp_path: Path, eventually: Eventually
) -> None:
    """Nobody listens until LiveKit has given up on events; then it listens and looks at the same time."""
    with (
        held_port() as port,
        livekit_server(tmp_path, f"http://127.0.0.1:{port}/livekit/webhook") as server,
    ):
        async with room_stage(sqlite_database, server.address, port, eventually) as stage:
            async with stage.hear():
                alice = await stage.join("long", "alice")
                await stage.eventually(lambda: tells(stage, "long", "participant.joined"))
            await stage.join("long", "bob")
            await alice.disconnect()
            carol = await stage.join("long", "carol")
            await carol.disconnect()
            await stage.join("short", "dave")
            await stage.eventually(lambda: server.log.count("failed to send webhook") >= 2, within=60)
            await stage.join("long", "erin")
            await stage.rest("DELETE", "/v1/rooms/short")
            stage.reconciler.start()
            try:
                async with stage.hear():
                    await stage.eventually(lambda: tells(stage, "long", "participant.joined", count=3))
                    await stage.eventually(lambda: tells(stage, "long", "participant.left"))
                    await stage.rest("DELETE", "/v1/rooms/long")
                    await stage.eventually(lambda: tells(stage, "long", "room.finished"), within=40)
            finally:
                await stage.reconciler.stop()

            counts = Counter(await stage.names_told("long"))
            # Whoever came and went unseen is told of in whole or not at all.
            assert counts.pop(("participant.joined", "carol"), 0) == counts.pop(
                ("participant.left", "carol"), 0
            )
            assert counts == {
                ("room.started", "long"): 1,
                ("participant.joined", "alice"): 1,
                ("participant.left", "alice"): 1,
                ("participant.joined", "bob"): 1,
                ("participant.left", "bob"): 1,
                ("participant.joined", "erin"): 1,
                ("participant.left", "erin"): 1,
                ("room.finished", "long"): 1,
            }
            noticed = {
                one["data"]["identity"]
                for one in await stage.told("long")
                if one["event"] == "participant.joined" and "noticedAt" in one["data"]
            }
            assert "bob" in noticed


async def tells(stage: RoomStage, room: str, event: str, project: str = PROJECT, *, count: int = 1) -> bool:
    return [one["event"] for one in await stage.told(room, project)].count(event) >= count


async def noticing(stage: RoomStage, room: str, event: str, *, count: int = 1) -> bool:
    await stage.reconciler.run_once()
    return await tells(stage, room, event, count=count)
