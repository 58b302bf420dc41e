"""`bax serve` itself: LiveKit's API beside ours, with its own LiveKit, and without one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from livekit import api, rtc
from livekit.protocol import egress as egress_pb
from livekit.protocol import room as room_pb

from tests.conftest import Eventually
from tests.livekit.stage import OWN, Pair
from tests.servers.bax import ADMIN_TOKEN, BaxServer, bax_server
from tests.servers.livekit import LiveKitServer, livekit_binary


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaxServer]:
    folder = tmp_path_factory.mktemp("bax")
    with bax_server(
        folder / "data",
        livekit_embedded="1",
        livekit_port="0",
        livekit_tcp_port="0",
        livekit_udp_ports="0",
        livekit_server=str(livekit_binary()),
        bootstrap_livekit_api_key=OWN.api_key,
        bootstrap_livekit_api_secret=OWN.api_secret,
    ) as running:
        yield running


def new_project_pair(server: BaxServer, project: str) -> Pair:
    operator = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    made = server.call("POST", "/v1/projects", {"id": project, "name": project}, operator)
    assert made.status in (200, 201), made.body
    pair = server.call("POST", f"/v1/projects/{project}/livekit-keys", {}, operator).json
    return Pair(pair["apiKey"], pair["apiSecret"])


async def test_sdk_with_our_address_alone(server: BaxServer, eventually: Eventually) -> None:
    """LK-06: a room made with the SDK is joined through us, and both projects see only their own."""
    theirs = new_project_pair(server, "cl_second")
    for pair in (OWN, theirs):
        async with api.LiveKitAPI(server.url, pair.api_key, pair.api_secret) as lk:
            await lk.room.create_room(room_pb.CreateRoomRequest(name="stage", metadata=pair.api_key))
            rooms = (await lk.room.list_rooms(room_pb.ListRoomsRequest())).rooms
            assert [(room.name, room.metadata) for room in rooms] == [("stage", pair.api_key)]
            token = (
                api.AccessToken(pair.api_key, pair.api_secret)
                .with_identity("ann")
                .with_grants(api.VideoGrants(room_join=True, room="stage"))
                .to_jwt()
            )
            visit = rtc.Room()
            await visit.connect(server.url.replace("http", "ws"), token)
            try:
                assert visit.name == "stage"

                async def seen() -> bool:
                    people = await lk.room.list_participants(room_pb.ListParticipantsRequest(room="stage"))
                    return [one.identity for one in people.participants] == ["ann"]

                await eventually(seen)
            finally:
                await visit.disconnect()
    assert server.call("GET", "/v1/rooms").json["items"][0]["name"] == "stage"


async def test_grpc_takes_the_same_tokens(server: BaxServer) -> None:
    """B-82: gRPC under the same names, with canonical codes."""

    async def ask(method: str, request: bytes, token: str | None) -> bytes:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
            call: Any = channel.unary_unary(f"/livekit.{method}")
            reply: bytes = await call(request, metadata=metadata)
            return reply

    created = room_pb.CreateRoomRequest(name="by-grpc").SerializeToString()
    reply = await ask("RoomService/CreateRoom", created, OWN.token({"roomCreate": True}))
    assert b"by-grpc" in reply
    for token, code in (
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("abc", grpc.StatusCode.UNAUTHENTICATED),
        (OWN.token({}), grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask("RoomService/CreateRoom", created, token)
        assert refused.value.code() is code
    listed = egress_pb.ListEgressRequest().SerializeToString()
    assert await ask("Egress/ListEgress", listed, OWN.token({"roomRecord": True})) == b""
    with pytest.raises(grpc.aio.AioRpcError) as pending:
        await ask("Ingress/ListIngress", b"", OWN.token({"ingressAdmin": True}))
    assert pending.value.code() is grpc.StatusCode.UNAVAILABLE


def test_revoking_a_pair_works_at_once(server: BaxServer) -> None:
    """A pair revoked over the API signs nothing any more, in the very next call."""
    pair = new_project_pair(server, "cl_revoking")
    headers = {"authorization": f"Bearer {pair.token({'roomList': True})}"}
    path = "/twirp/livekit.RoomService/ListRooms"
    assert server.call("POST", path, {}, headers).status == 200
    operator = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    gone = server.call("DELETE", f"/v1/projects/cl_revoking/livekit-keys/{pair.api_key}", None, operator)
    assert gone.status in (200, 204)
    assert server.call("POST", path, {}, headers).status == 401


def test_nothing_that_signs_is_logged(server: BaxServer) -> None:
    """Issue section 6: neither tokens, good or bad, nor secrets are in the log."""
    good = OWN.token({"roomJoin": True, "room": "logged"}, sub="ann")
    bad = Pair(OWN.api_key, "x" * 40).token({"roomList": True})
    for token in (good, bad, "abcdef.abcdef"):
        server.call("POST", "/twirp/livekit.RoomService/ListRooms", {}, {"authorization": f"Bearer {token}"})
        server.call("GET", f"/rtc/validate?access_token={token}", None, {})
        server.call("GET", f"/rtc?access_token={token}", None, {})
    for secret in (good, bad, good.split(".")[2], bad.split(".")[2], "abcdef.abcdef", OWN.api_secret):
        assert secret not in server.log


async def test_open_sockets_do_not_hold_up_the_end(livekit_behind: LiveKitServer, tmp_path: Path) -> None:
    """Participants are told to come back (1012), and the server is gone long before its grace of 60 s."""
    address = livekit_behind.address
    with bax_server(
        tmp_path / "data",
        livekit_url=address.url,
        livekit_api_key=address.api_key,
        livekit_api_secret=address.api_secret,
        bootstrap_livekit_api_key=OWN.api_key,
        bootstrap_livekit_api_secret=OWN.api_secret,
        drain_grace_sec="60",
    ) as server:
        token = OWN.token({"roomJoin": True, "room": "ending"}, sub="ann")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/rtc", params={"access_token": token}) as socket,
        ):
            await socket.receive_bytes()
            ended = asyncio.create_task(asyncio.to_thread(server.stop, within=30))
            async with asyncio.timeout(30):
                while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1012)
            assert await ended == 0


def test_without_a_livekit(tmp_path: Path) -> None:
    """Design section 2: the server starts, and says what is missing to whoever has the right to ask."""
    with bax_server(
        tmp_path / "data",
        livekit_embedded="0",
        bootstrap_livekit_api_key=OWN.api_key,
        bootstrap_livekit_api_secret=OWN.api_secret,
    ) as server:

        def ask(path: str, token: str, verb: str = "POST") -> tuple[int, bytes]:
            answer = server.call(verb, path, {}, {"authorization": f"Bearer {token}"})
            return answer.status, answer.body

        listing = "/twirp/livekit.RoomService/ListRooms"
        status, body = ask(listing, OWN.token({"roomList": True}))
        assert status == 503
        assert b"no LiveKit" in body
        assert ask(listing, OWN.token({}))[0] == 401
        assert ask(listing, "abc")[0] == 401
        status, body = ask("/rtc/validate", OWN.token({"roomJoin": True, "room": "x"}, sub="ann"), "GET")
        assert status == 503
        assert b"no LiveKit" in body
