"""Projects that share one LiveKit through us: nothing of one is seen, named or changed by another (design section 10)."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from livekit.protocol import room as pb

from tests.livekit.sides import METHODS, filled, request_of
from tests.livekit.stage import OTHERS, OWN, PAIRS, THIRDS, LiveKitStage, Pair
from tests.livekit.test_differential import GOOD

EVERYTHING = {"roomCreate": True, "roomList": True, "roomRecord": True, "ingressAdmin": True}


def admin(pair: Pair, room: str) -> str:
    return pair.token({**EVERYTHING, "roomAdmin": True, "room": room, "destinationRoom": f"{room}-there"})


async def created(stage: LiveKitStage, pair: Pair, room: str, **more: Any) -> dict[str, Any]:
    answer = await stage.ask("RoomService/CreateRoom", {"name": room, **more}, admin(pair, room))
    assert answer.status == 200, answer.body
    made: dict[str, Any] = answer.json
    return made


async def names(stage: LiveKitStage, pair: Pair, *asked: str) -> list[str]:
    answer = await stage.ask("RoomService/ListRooms", {"names": asked}, admin(pair, ""))
    assert answer.status == 200
    return sorted(room["name"] for room in answer.json["rooms"])


async def test_lists_hold_only_the_projects_rooms(stage: LiveKitStage) -> None:
    """The same name is another room in each project, with its own sid, and nobody's list shows the others'."""
    sids = {pair.api_key: (await created(stage, pair, "iso-same"))["sid"] for pair in PAIRS.values()}
    assert len(set(sids.values())) == 3
    await created(stage, OTHERS, "iso-theirs")
    assert await names(stage, OWN, "iso-same", "iso-theirs") == ["iso-same"]
    assert await names(stage, THIRDS, "iso-same", "iso-theirs") == ["iso-same"]
    assert await names(stage, OTHERS, "iso-same", "iso-theirs") == ["iso-same", "iso-theirs"]
    assert "iso-theirs" in await names(stage, OTHERS)
    for pair in (OWN, THIRDS):
        assert "iso-theirs" not in await names(stage, pair)
        everything = await stage.ask("RoomService/ListRooms", {}, admin(pair, ""))
        assert b"bax:" not in everything.body
        assert sids[OTHERS.api_key].encode() not in everything.body


async def test_foreign_names_lead_nowhere(stage: LiveKitStage) -> None:
    """No spelling of LiveKit's name of a room reaches it, and asking for such ones only lists nothing at all."""
    await created(stage, OTHERS, "iso-hidden")
    inside = "bax:cl_other:iso-hidden"
    for pair in (OWN, THIRDS, OTHERS):
        assert await names(stage, pair, inside) == []
        assert await names(stage, pair, inside, "bax:") == []
        for method, (_, bodies) in GOOD.items():
            if method == "ListRooms":
                continue
            body = {"name": inside} if method == "CreateRoom" else filled(dict(bodies[0][1]), inside)
            answer = await stage.ask(f"RoomService/{method}", body, admin(pair, inside))
            assert (answer.status, answer.json["code"]) == (400, "invalid_argument"), method
    for method in ("ForwardParticipant", "MoveParticipant"):
        body = {"room": "iso-mine", "identity": "ann", "destinationRoom": inside}
        token = OWN.token({"roomAdmin": True, "room": "iso-mine", "destinationRoom": inside})
        assert (await stage.ask(f"RoomService/{method}", body, token)).status == 400
    assert await names(stage, OTHERS, "iso-hidden") == ["iso-hidden"]


async def test_repeated_and_unknown_fields(stage: LiveKitStage) -> None:
    """What LiveKit reads is what we read: a field given twice, in either encoding, cannot smuggle in another room."""
    await created(stage, OTHERS, "iso-target")
    token = OWN.token({"roomCreate": True})
    inside = b"bax:cl_other:iso-target"
    twice = b'{"room": "iso-none", "room": "bax:cl_other:iso-target"}'
    assert (await stage.ask("RoomService/DeleteRoom", twice, token)).status == 400
    for fields in ((b"iso-none", inside), (inside, b"iso-none")):
        body = b"".join(b"\x0a" + bytes([len(field)]) + field for field in fields)
        answer = await stage.ask("RoomService/DeleteRoom", body, token, kind="application/protobuf")
        assert answer.status in (400, 404)
    escaped = b'{"room": "\\u0062ax:cl_other:iso-target"}'
    assert (await stage.ask("RoomService/DeleteRoom", escaped, token)).status == 400
    assert await names(stage, OTHERS, "iso-target") == ["iso-target"]


async def test_answers_of_a_project_show_no_prefix(stage: LiveKitStage) -> None:
    """Replies and errors of every method, in both encodings, speak of rooms as the project does."""
    await created(stage, OTHERS, "iso-plain")
    quick = {
        "CreateRoom",
        "ListRooms",
        "ListParticipants",
        "GetParticipant",
        "UpdateRoomMetadata",
        "DeleteRoom",
    }
    for method in sorted(quick):
        body: dict[str, Any] = {"name" if method == "CreateRoom" else "room": "iso-plain"}
        if method == "ListRooms":
            body = {"names": ["iso-plain"]}
        for kind in ("application/json", "application/protobuf"):
            data: Any = body
            if kind.endswith("protobuf"):
                data = request_of(method, body).SerializeToString()
            answer = await stage.ask(f"RoomService/{method}", data, admin(OTHERS, "iso-plain"), kind=kind)
            assert b"bax:" not in answer.body, (method, answer.body)
            assert answer.status in (200, 404), (method, answer.body)


async def test_agents_and_telephones_are_the_bootstrap_projects(stage: LiveKitStage) -> None:
    """What LiveKit keeps for all projects together is open to the one that owns it."""
    await created(stage, OWN, "iso-agents")
    body = {"room": "iso-agents", "agentName": "helper"}
    made = await stage.ask("AgentDispatchService/CreateDispatch", body, admin(OWN, "iso-agents"))
    assert (made.status, made.json["room"]) == (200, "iso-agents")
    listed = await stage.ask(
        "AgentDispatchService/ListDispatch", {"room": "iso-agents"}, admin(OWN, "iso-agents")
    )
    assert made.json["id"] in {one["id"] for one in listed.json["agent_dispatches"]}
    inside = "bax:cl_other:iso-agents"
    marked = await stage.ask("AgentDispatchService/CreateDispatch", {"room": inside}, admin(OWN, inside))
    assert marked.status == 400
    refused = await stage.ask("AgentDispatchService/CreateDispatch", body, admin(OTHERS, "iso-agents"))
    assert (refused.status, refused.json["code"]) == (412, "failed_precondition")
    room = {"name": "iso-with-agents", "agents": [{"agentName": "helper"}]}
    refused = await stage.ask("RoomService/CreateRoom", room, admin(OTHERS, "iso-with-agents"))
    assert (refused.status, refused.json["code"]) == (412, "failed_precondition")
    sip = OWN.token({}, sip={"admin": True})
    answer = await stage.ask("SIP/ListSIPTrunk", {}, sip)
    assert "sip not connected" in answer.json["msg"]
    for pair, status in ((OWN, 401), (OTHERS, 401)):
        assert (await stage.ask("SIP/ListSIPTrunk", {}, pair.token(EVERYTHING))).status == status
    assert (await stage.ask("SIP/ListSIPTrunk", {}, OTHERS.token({}, sip={"admin": True}))).status == 412
    rule = {"rule": {"dispatchRuleDirect": {"roomName": inside}}}
    assert (await stage.ask("SIP/CreateSIPDispatchRule", rule, sip)).status == 400


async def test_the_engine_to_come(stage: LiveKitStage) -> None:
    """Without an ingress engine its calls are unavailable at once; LiveKit's own would hang or panic."""
    answer = await stage.ask("Ingress/CreateIngress", {}, OWN.token({"ingressAdmin": True}))
    assert (answer.status, answer.json["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    "method", ["Egress/ListEgress", "Egress/StartRoomCompositeEgress", "Ingress/CreateIngress"]
)
async def test_engines_ask_for_their_grant(stage: LiveKitStage, method: str) -> None:
    """LK-01: the grant is checked before anything else but the body's form."""
    for token in (OWN.token({}), OWN.token({"roomAdmin": True, "room": "x"}), None):
        answer = await stage.ask(method, {}, token)
        assert (answer.status, answer.json) == (401, {"code": "unauthenticated", "msg": "permissions denied"})
    assert (await stage.ask(method, b"{", OWN.token({}))).json["code"] == "malformed"


async def test_large_bodies(stage: LiveKitStage) -> None:
    """livekit-surface.md 1.1: up to 10 MiB; more is 413 in plain text, announced or not."""
    token = admin(OWN, "iso-large")
    await created(stage, OWN, "iso-large")
    fits = pb.SendDataRequest(room="iso-large", data=bytes(9 * 1024 * 1024)).SerializeToString()
    answer = await stage.ask("RoomService/SendData", fits, token, kind="application/protobuf")
    assert answer.status == 200
    answer = await stage.ask("RoomService/SendData", bytes(10 * 1024 * 1024 + 1), token)
    assert (answer.status, answer.content_type) == (413, "text/plain; charset=utf-8")
    assert answer.body == b"request body too large"
    answer = await stage.ask("RoomService/SendData", b"{" + bytes(300 * 1024), None)
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), "not even decoded for nobody"

    async def endless() -> Any:
        for _ in range(200):
            yield bytes(128 * 1024)

    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    url = f"{stage.url}/twirp/livekit.RoomService/SendData"
    try:
        async with stage.session.post(url, data=endless(), headers=headers) as reply:
            assert reply.status == 413
    except aiohttp.ClientConnectionError:
        pass  # The answer may be overtaken by the end of the connection.


def test_every_method_has_its_room_mapped() -> None:
    """A method of a newer package would be passed on with whatever names it holds: it must be looked at first."""
    rooms = {"room", "destination_room", "name", "names"}
    for method in METHODS.values():
        fields = {
            field.name for field in method.input_type.fields if "room" in field.name or field.name in rooms
        }
        known = {
            "CreateRoom": {"name", "room_preset"},
            "ListRooms": {"names"},
            "UpdateParticipant": {"room", "name"},
            "ForwardParticipant": {"room", "destination_room"},
            "MoveParticipant": {"room", "destination_room"},
        }
        assert fields == known.get(method.name, {"room"}), method.name
