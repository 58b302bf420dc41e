"""LiveKit's own server SDKs, unmodified, against LiveKit and against us: the same operations, the same answers (LK-06)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from livekit import api, rtc
from livekit.protocol import models as models_pb
from livekit.protocol import room as pb

from tests.conftest import Eventually
from tests.livekit.sides import Side, reduced, sides
from tests.livekit.stage import LiveKitStage
from tools.generate_stubs import cache_folder, search_path

_NODE = Path(__file__).with_name("node")


@asynccontextmanager
async def with_alice(side: Side, eventually: Eventually) -> AsyncIterator[None]:
    """Alice is in the side's room and publishes sound; she came by the same address that the SDK is given."""
    visit = rtc.Room()
    token = side.pair.token({"roomJoin": True, "room": side.room}, sub="alice")
    await visit.connect(side.base.replace("http", "ws", 1), token)
    source = rtc.AudioSource(48_000, 1)
    try:
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await visit.local_participant.publish_track(track, options)
        async with api.LiveKitAPI(side.base, side.pair.api_key, side.pair.api_secret) as lk:

            async def published() -> bool:
                who = pb.RoomParticipantIdentity(room=side.room, identity="alice")
                alice = await lk.room.get_participant(who)
                return bool(alice.tracks) and alice.state == models_pb.ParticipantInfo.State.ACTIVE

            await eventually(published)
        yield
    finally:
        await visit.disconnect()
        await source.aclose()


async def with_python(side: Side) -> list[Any]:
    """What each operation of `livekit-api` gave."""
    told: list[Any] = []
    room = side.room

    async def tell(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            value = await call()
        except api.TwirpError as error:
            told.append((name, {"status": error.status, "code": error.code, "message": error.message}))
            return None
        shown = json_format.MessageToDict(value) if isinstance(value, Message) else value
        told.append((name, shown))
        return value

    async with api.LiveKitAPI(side.base, side.pair.api_key, side.pair.api_secret) as lk:
        rooms = lk.room
        alice = pb.RoomParticipantIdentity(room=room, identity="alice")
        nobody = pb.RoomParticipantIdentity(room=room, identity="nobody")
        await tell("create", lambda: rooms.create_room(pb.CreateRoomRequest(name=room, metadata="first")))
        await tell("list", lambda: rooms.list_rooms(pb.ListRoomsRequest(names=[room])))
        await tell("list none", lambda: rooms.list_rooms(pb.ListRoomsRequest(names=[room + "-missing"])))
        await tell(
            "room metadata",
            lambda: rooms.update_room_metadata(pb.UpdateRoomMetadataRequest(room=room, metadata="second")),
        )
        await tell("participants", lambda: rooms.list_participants(pb.ListParticipantsRequest(room=room)))
        found = await tell("participant", lambda: rooms.get_participant(alice))
        track = found.tracks[0].sid if found else "TR_none"
        update = pb.UpdateParticipantRequest(
            room=room, identity="alice", metadata="m", name="Alice", attributes={"a": "1"}
        )
        await tell("update", lambda: rooms.update_participant(update))
        for muted in (True, False):
            mute = pb.MuteRoomTrackRequest(room=room, identity="alice", track_sid=track, muted=muted)
            await tell(f"muted {muted}", lambda mute=mute: rooms.mute_published_track(mute))  # type: ignore[misc]
        subscriptions = pb.UpdateSubscriptionsRequest(room=room, identity="alice", track_sids=[track])
        await tell("subscriptions", lambda: rooms.update_subscriptions(subscriptions))
        data = pb.SendDataRequest(room=room, data=b"hi", destination_identities=["alice"])
        await tell("data", lambda: rooms.send_data(data))
        there = room + "-there"
        forward = pb.ForwardParticipantRequest(room=room, identity="alice", destination_room=there)
        await tell("forward", lambda: rooms.forward_participant(forward))
        move = pb.MoveParticipantRequest(room=room, identity="alice", destination_room=there)
        await tell("move", lambda: rooms.move_participant(move))
        await tell("missing participant", lambda: rooms.get_participant(nobody))
        await tell("remove", lambda: rooms.remove_participant(alice))
        await tell("remove again", lambda: rooms.remove_participant(nobody))
        await tell("delete", lambda: rooms.delete_room(pb.DeleteRoomRequest(room=room)))
        await tell("delete again", lambda: rooms.delete_room(pb.DeleteRoomRequest(room=room + "-missing")))
    async with api.LiveKitAPI(side.base, side.pair.api_key, "x" * 40) as stranger:
        await tell("wrong secret", lambda: stranger.room.list_rooms(pb.ListRoomsRequest()))
    return told


@pytest.fixture(scope="session")
def node_operations() -> Callable[[Side], Awaitable[list[Any]]]:
    """Runs the script with the SDK from the cache folder; skips where there is no Node.js or it cannot be fetched."""
    folder = installed_sdk()

    async def run(side: Side) -> list[Any]:
        pair = side.pair
        script = await asyncio.create_subprocess_exec(
            "node", str(folder / "operations.mjs"), side.base, pair.api_key, pair.api_secret, side.room,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PATH": search_path()},
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await script.communicate()
        assert script.returncode == 0, err.decode()
        told: list[Any] = json.loads(out)
        return told

    return run


def installed_sdk() -> Path:
    npm = shutil.which("npm", path=search_path())
    if npm is None or shutil.which("node", path=search_path()) is None:
        pytest.skip("there is no Node.js on this machine")
    lock = (_NODE / "package-lock.json").read_bytes()
    folder = cache_folder().parent / f"livekit-node-sdk-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "operations.mjs", "egress.mjs"):
        shutil.copyfile(_NODE / name, folder / name)
    if not (folder / "node_modules" / "livekit-server-sdk").exists():
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PATH": search_path()},
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"npm could not install livekit-server-sdk: {done.stderr.strip()[-300:]}")
    return folder


async def compared(
    stage: LiveKitStage, room: str, operations: Callable[[Side], Awaitable[list[Any]]], eventually: Eventually
) -> None:
    theirs: list[Any] | None = None
    for side in sides(stage, room):
        async with with_alice(side, eventually):
            told = reduced(json.loads(json.dumps(await operations(side))), side.room)
        if theirs is None:
            theirs = told
            assert [
                name
                for name, value in told
                if name in ("update", "remove", "delete") and "error" in str(value)
            ] == []
        else:
            assert told == theirs, side.name


async def test_python_sdk(stage: LiveKitStage, eventually: Eventually) -> None:
    await compared(stage, "python-sdk", with_python, eventually)


async def test_node_sdk(
    stage: LiveKitStage, node_operations: Callable[[Side], Awaitable[list[Any]]], eventually: Eventually
) -> None:
    await compared(stage, "node-sdk", node_operations, eventually)
