"""Joining through us: the official rtc SDK with our address alone, and signalling as it looks on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import pytest
from livekit import rtc
from livekit.protocol.rtc import SignalResponse

from server.clock import SystemClock
from server.domain.project import LiveKitKey
from tests.conftest import Eventually
from tests.livekit.sides import Case, comparable, sides
from tests.livekit.stage import OTHER, OTHERS, OWN, LiveKitStage, Pair
from tests.livekit.test_differential import tokens

JOIN = {"roomJoin": True, "room": "hall"}


@asynccontextmanager
async def joined(url: str, *given: str) -> AsyncIterator[list[Any]]:
    """One participant a token, connected to `url`."""
    rooms = []
    try:
        for token in given:
            room = rtc.Room()
            await room.connect(url.replace("http", "ws", 1), token)
            rooms.append(room)
        yield rooms
    finally:
        for room in rooms:
            await room.disconnect()


@pytest.mark.parametrize("pair", [OWN, OTHERS], ids=["bootstrap", "other"])
async def test_two_participants_see_each_other(
    stage: LiveKitStage, eventually: Eventually, pair: Pair
) -> None:
    """Issue section 3: given our URL alone, SDKs join; each sees the other, the room's own name and the data sent."""
    heard: list[bytes] = []
    async with joined(stage.url, pair.token(JOIN, sub="ann", name="Ann"), pair.token(JOIN, sub="bob")) as (
        ann,
        bob,
    ):
        bob.on("data_received", lambda packet: heard.append(packet.data))
        await eventually(lambda: set(ann.remote_participants) == {"bob"})
        await eventually(lambda: set(bob.remote_participants) == {"ann"})
        assert bob.remote_participants["ann"].name == "Ann"
        assert (ann.name, bob.name) == ("hall", "hall")
        await ann.local_participant.publish_data(b"hello", reliable=True)
        await eventually(lambda: heard == [b"hello"])
        admin = pair.token({"roomAdmin": True, "room": "hall"})
        answer = await stage.ask("RoomService/ListParticipants", {"room": "hall"}, admin)
        assert {one["identity"] for one in answer.json["participants"]} == {"ann", "bob"}


async def test_same_name_in_two_projects_is_two_rooms(stage: LiveKitStage, eventually: Eventually) -> None:
    """Design section 10: participants of one project never meet those of another."""
    async with joined(stage.url, OWN.token(JOIN, sub="ann"), OTHERS.token(JOIN, sub="ann")) as (ann, other):
        assert await ann.sid != await other.sid
        answer = await stage.ask(
            "RoomService/ListParticipants",
            {"room": "hall"},
            OTHERS.token({"roomAdmin": True, "room": "hall"}),
        )
        assert [one["identity"] for one in answer.json["participants"]] == ["ann"]
        assert ann.connection_state == other.connection_state
        assert not ann.remote_participants
        assert not other.remote_participants


@asynccontextmanager
async def signalling(
    stage: LiveKitStage, token: str, **query: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with stage.session.ws_connect(
        stage.url + "/rtc", params={"access_token": token, "protocol": "16", **query}
    ) as socket:
        yield socket


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    """The next message of that kind."""
    async with asyncio.timeout(15):
        while True:
            frame = await socket.receive_bytes()
            message: Any = SignalResponse.FromString(frame)
            assert b"bax:" not in frame
            if message.WhichOneof("message") == kind:
                return message


async def test_fresh_tokens_are_the_projects_own(stage: LiveKitStage) -> None:
    """What LiveKit sends to keep a participant going is signed by the project's pair, and good for coming back."""
    everything = {**JOIN, "roomAdmin": True, "roomCreate": True, "roomList": True, "agent": True}
    first = OTHERS.token(everything, sub="ann", sip={"admin": True})
    async with signalling(stage, first) as socket:
        join = (await until(socket, "join")).join
        assert join.room.name == "hall"
        fresh = (await until(socket, "refresh_token")).refresh_token
        claims = jwt.decode(fresh, OTHERS.api_secret, algorithms=["HS256"])
        assert (claims["iss"], claims["sub"], claims["video"]["room"]) == (OTHERS.api_key, "ann", "hall")
        granted = {name for name, value in claims["video"].items() if value is True}
        assert not granted & {"roomAdmin", "roomCreate", "roomList", "agent"}
        assert not claims.get("sip")
        renamed = await stage.ask(
            "RoomService/UpdateRoomMetadata",
            {"room": "hall", "metadata": "new"},
            OTHERS.token({"roomAdmin": True, "room": "hall"}),
        )
        assert renamed.status == 200
        update = (await until(socket, "room_update")).room_update
        assert (update.room.name, update.room.metadata) == ("hall", "new")
    async with signalling(stage, fresh) as socket:
        assert (await until(socket, "join")).join.room.name == "hall"


async def test_livekits_own_tokens_come_in_too(stage: LiveKitStage) -> None:
    """Those of `CreateToken` are signed by LiveKit's pair; through us they show no prefix either."""
    itself = Pair(stage.livekit.api_key, stage.livekit.api_secret)
    for room, shown in (("lobby", "lobby"), ("bax:cl_other:lobby", "lobby")):
        token = itself.token({"roomJoin": True, "room": room}, sub="ann")
        async with signalling(stage, token) as socket:
            assert (await until(socket, "join")).join.room.name == shown


async def test_the_room_is_the_tokens(stage: LiveKitStage) -> None:
    """Neither a query parameter nor a marked name leads into another project's room."""
    async with signalling(stage, OTHERS.token(JOIN, sub="ann"), room="bax:cl_third:hall") as socket:
        assert (await until(socket, "join")).join.room.name == "hall"
    for pair in (OWN, OTHERS):
        token = pair.token({"roomJoin": True, "room": "bax:cl_third:hall"}, sub="ann")
        answer = await stage.ask("/rtc/validate", b"", token, verb="GET")
        assert (answer.status, answer.body) == (401, b"permissions denied")
        nowhere = pair.token({"roomJoin": True}, sub="ann")
        answer = await stage.ask("/rtc/validate?room=bax:cl_third:hall", b"", nowhere, verb="GET")
        assert answer.status == 400


GRANTS: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "joins": ({"roomJoin": True, "room": "v"}, {"sub": "ann"}),
    "no identity": ({"roomJoin": True, "room": "v"}, {}),
    "identity in jti": ({"roomJoin": True, "room": "v"}, {"jti": "ann"}),
    "no grant": ({"room": "v"}, {"sub": "ann"}),
    "no video": (None, {"sub": "ann"}),
    "no room": ({"roomJoin": True}, {"sub": "ann"}),
    "long identity": ({"roomJoin": True, "room": "v"}, {"sub": "a" * 257}),
    "may not publish": ({"roomJoin": True, "room": "v", "canPublish": False}, {"sub": "ann"}),
}
PATHS = (
    "/rtc/validate",
    "/rtc/validate?publish=x",
    "/rtc/validate?attributes=%21",
    "/rtc/v1/validate",
    "/rtc/v1/validate?join_request=%21",
    "/rtc/v1/validate?join_request=",
    "/rtc",
    "/rtc/v1",
    "/settings/regions",
)


async def test_validation_answers_like_livekit(stage: LiveKitStage) -> None:
    """livekit-surface.md 11: who may not join is told why, in the same words and with the same status."""
    found = []
    for path in PATHS:
        for name, (video, claims) in GRANTS.items():
            for verb in ("GET", "POST", "OPTIONS"):
                seen = []
                for side in sides(stage, "validate"):
                    token = side.pair.token(video, **claims)
                    headers = {"origin": "https://web.example", "access-control-request-method": verb}
                    answer = await stage.ask(
                        path, b"", token, base=side.base, verb=verb, kind="", headers=headers
                    )
                    seen.append(comparable(Case("ListRooms"), answer, side))
                found += [(path, name, verb, one, seen[0]) for one in seen[1:] if one != seen[0]]
    assert found == []


async def test_bad_tokens_cannot_join(stage: LiveKitStage) -> None:
    """Each bad token ends the handshake with LiveKit's status; what was said is said again by `/validate`."""
    direct, *mine = sides(stage, "sockets")
    for name, token in tokens(direct.pair, JOIN).items():
        theirs = await _handshake(stage, direct.base, token)
        for side in mine:
            own = tokens(side.pair, JOIN)[name]
            assert await _handshake(stage, side.base, own) == theirs, name


async def _handshake(stage: LiveKitStage, base: str, token: str) -> int:
    try:
        async with stage.session.ws_connect(f"{base}/rtc", params={"access_token": token}) as socket:
            assert not socket.closed
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_revoked_pair(stage: LiveKitStage) -> None:
    """A revoked pair lets nobody in, and at once in the process that revoked it."""
    pair = Pair("APIrevoked", "revoked-secret-0123456789abcdefghijk")
    async with stage.database.begin() as unit:
        await unit.keys.add_livekit_key(LiveKitKey(pair.api_key, OTHER, pair.api_secret, SystemClock().now()))
        await unit.commit()
    token = pair.token({**JOIN, "roomList": True}, sub="ann")
    assert (await stage.ask("RoomService/ListRooms", {}, token)).status == 200
    assert (await stage.ask("/rtc/validate", b"", token, verb="GET")).status == 200
    async with stage.database.begin() as unit:
        await unit.keys.revoke_livekit_key(OTHER, pair.api_key)
        await unit.commit()
    stage.api.pairs.forget(pair.api_key)
    assert (await stage.ask("RoomService/ListRooms", {}, token)).status == 401
    assert (await stage.ask("/rtc/validate", b"", token, verb="GET")).status == 401
    assert await _handshake(stage, stage.url, token) == 401


async def test_config_in_tokens(stage: LiveKitStage) -> None:
    """Nothing that cannot be recorded and no other project's agents start by way of a token, and `/validate` says why."""
    recording = {"egress": {"room": {"roomName": "x"}}}
    agents = {"agents": [{"agentName": "helper"}]}
    for pair, config, status in (
        (OWN, recording, 400),
        (OTHERS, recording, 400),
        (OTHERS, agents, 401),
        (OWN, agents, 200),
    ):
        token = pair.token(JOIN, sub="ann", roomConfig=config)
        assert (await stage.ask("/rtc/validate", b"", token, verb="GET")).status == status
