"""LiveKit killed, paused or gone while it is called through us: an answer in time, saying why, and service after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from livekit.protocol.rtc import LeaveRequest, SignalRequest, SignalResponse

from adapters.db.unit_of_work import SqlDatabase
from tests.conftest import Eventually
from tests.livekit.stage import OTHERS, OWN, LiveKitStage, livekit_stage
from tests.servers.livekit import LiveKitServer, livekit_server

LIST = {"roomList": True}
JOIN = {"roomJoin": True, "room": "faults"}


@pytest.fixture
def own_livekit(tmp_path: Path) -> Iterator[LiveKitServer]:
    """One that may be killed."""
    with livekit_server(tmp_path) as server:
        yield server


async def test_killed_and_back(
    sqlite_database: SqlDatabase, own_livekit: LiveKitServer, eventually: Eventually
) -> None:
    """Issue section 6: `unavailable` at once, text for joining, and calls work again without our restart."""
    async with livekit_stage(sqlite_database, own_livekit.address) as stage:
        assert (await stage.ask("RoomService/ListRooms", {}, OWN.token(LIST))).status == 200
        async with stage.session.ws_connect(
            f"{stage.url}/rtc", params={"access_token": OTHERS.token(JOIN, sub="ann")}
        ) as socket:
            await socket.receive_bytes()
            own_livekit.kill()
            async with asyncio.timeout(10):
                while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            assert message.type is aiohttp.WSMsgType.CLOSE
        for method, grants in (("ListRooms", LIST), ("CreateRoom", {"roomCreate": True})):
            answer = await stage.ask(f"RoomService/{method}", {}, OWN.token(grants))
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert "cannot be reached" in answer.json["msg"]
        assert (await stage.ask("RoomService/ListRooms", {}, OWN.token({}))).status == 401
        refused = await stage.ask("/rtc/validate", b"", OWN.token(JOIN, sub="ann"), verb="GET")
        assert (refused.status, refused.content_type) == (503, "text/plain; charset=utf-8")
        with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
            await stage.session.ws_connect(
                f"{stage.url}/rtc", params={"access_token": OWN.token(JOIN, sub="ann")}
            )
        assert handshake.value.status == 503
        own_livekit.start()

        async def works() -> bool:
            return (await stage.ask("RoomService/ListRooms", {}, OWN.token(LIST))).status == 200

        await eventually(works)


async def test_paused(sqlite_database: SqlDatabase, own_livekit: LiveKitServer) -> None:
    """Nothing hangs: the client's own deadline holds, and without one ours does."""
    async with livekit_stage(sqlite_database, own_livekit.address) as stage:
        await stage.ask("RoomService/ListRooms", {}, OWN.token(LIST))
        with own_livekit.paused():
            answer = await stage.ask(
                "RoomService/ListRooms", {}, OWN.token(LIST), headers={"x-twirp-timeout-ms": "300"}
            )
            assert (answer.status, answer.json["code"]) == (408, "deadline_exceeded")
            answer = await stage.ask("RoomService/ListRooms", {}, OWN.token(LIST))
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert "did not answer" in answer.json["msg"]
        assert (await stage.ask("RoomService/ListRooms", {}, OWN.token(LIST))).status == 200


async def test_a_client_that_leaves_leaves_livekit_too(stage: LiveKitStage, eventually: Eventually) -> None:
    """A socket that is cut ends the participant's signalling behind us as well, so that LiveKit can count them out."""
    admin = OTHERS.token({"roomAdmin": True, "room": "leaving"})
    token = OTHERS.token({"roomJoin": True, "room": "leaving"}, sub="ann")

    async def people() -> int:
        answer = await stage.ask("RoomService/ListParticipants", {"room": "leaving"}, admin)
        return len(answer.json["participants"])

    async with stage.session.ws_connect(f"{stage.url}/rtc", params={"access_token": token}) as socket:
        joined = SignalResponse.FromString(await socket.receive_bytes())
        assert joined.join.participant.identity == "ann"
        assert await people() == 1
        await socket.send_bytes(SignalRequest(leave=LeaveRequest()).SerializeToString())

        async def nobody_left() -> bool:
            return await people() == 0

        await eventually(nobody_left)
