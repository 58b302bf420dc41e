"""Twirp's own rules (specification v7; contract B-80; livekit-surface 1.1), by hand and by the generated clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog
from twirp.context import Context
from twirp.errors import Errors
from twirp.exceptions import TwirpServerException

from generated.baxcloud.v1 import room_pb2, video_conversion_pb2
from generated.baxcloud.v1.room_twirp import AsyncRoomServiceClient, RoomServiceClient
from tests.transport.surface import KEY, Surface, headers_for

ROOMS = "/twirp/baxcloud.v1.RoomService"


async def post(
    surface: Surface,
    path: str,
    body: bytes = b"{}",
    kind: str | None = "application/json",
    verb: str = "POST",
) -> tuple[int, Any, str]:
    headers = headers_for()
    skip = [] if kind else ["content-type"]
    if kind:
        headers["content-type"] = kind
    async with surface.session.request(
        verb, surface.http + path, data=body, headers=headers, skip_auto_headers=skip
    ) as answer:
        raw = await answer.read()
        return answer.status, json.loads(raw) if raw else None, answer.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "verb", "kind"),
    [
        (f"{ROOMS}/ListRooms", "GET", "application/json"),
        (f"{ROOMS}/ListRooms", "PUT", "application/json"),
        (f"{ROOMS}/Nope", "POST", "application/json"),
        (f"{ROOMS}/listRooms", "POST", "application/json"),
        (f"{ROOMS}/", "POST", "application/json"),
        (f"{ROOMS}/ListRooms/x", "POST", "application/json"),
        ("/twirp/baxcloud.v1.Nope/ListRooms", "POST", "application/json"),
        ("/twirp/", "POST", "application/json"),
        (f"{ROOMS}/ListRooms", "POST", "text/plain"),
        (f"{ROOMS}/ListRooms", "POST", "application/jsonx"),
        (f"{ROOMS}/ListRooms", "POST", None),
    ],
)
async def test_bad_routes(surface: Surface, path: str, verb: str, kind: str | None) -> None:
    """404 `bad_route` with what was asked for in `meta`; another content type too."""
    status, body, shown = await post(surface, path, verb=verb, kind=kind)
    assert (status, body["code"], shown) == (404, "bad_route", "application/json")
    assert body["meta"]["twirp_invalid_route"] == f"{verb} {path}"


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        " application/json ",
    ],
)
async def test_json_content_types(surface: Surface, kind: str) -> None:
    status, _, shown = await post(surface, f"{ROOMS}/ListRooms", kind=kind)
    assert (status, shown) == (200, "application/json")


async def test_output_is_livekits(surface: Surface) -> None:
    """B-80: proto names, defaults emitted, unset messages null, 64-bit integers as strings, enums as names."""
    job = video_conversion_pb2.ConversionJob(id="cm1", status="PENDING", duration_sec=0)
    surface.recorder.answers["GetConversionJob"] = lambda _r, _c: job
    path = "/twirp/baxcloud.v1.VideoConversionService/GetConversionJob"
    _, body, _ = await post(surface, path, b'{"job_id": "cm1"}')
    assert body["project_id"] == ""
    assert body["status"] == "PENDING"
    assert body["output_formats"] == []
    assert body["rendition_urls"] == {}
    assert body["started_at"] is None
    assert body["duration_sec"] == 0
    assert "output_url" not in body, "optional fields are left out while unset"
    assert not [name for name in body if name != name.lower()]
    from generated.baxcloud.v1 import project_pb2

    surface.recorder.answers["GetUsage"] = lambda _r, _c: project_pb2.Usage(conversion_seconds=2**53 + 1)
    _, usage, _ = await post(
        surface, "/twirp/baxcloud.v1.ProjectService/GetUsage", b'{"project_id": "cl_proj_abc123"}'
    )
    assert usage["conversion_seconds"] == str(2**53 + 1)
    assert usage["conversion_cents"] == "0"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"room_name": "a", "participant_identity": "b"}', {}),
        (b'{"roomName": "a", "participantIdentity": "b"}', {}),
        (b'{"roomName": "a", "participant_identity": "b", "unknown": {"x": 1}}', {}),
        (b'{"roomName": "a", "participantIdentity": "b", "ttl": "33"}', {"ttl": 33}),
        (b'{"roomName": "a", "participantIdentity": "b", "ttl": 5.0}', {"ttl": 5}),
        (b'{"roomName": "a", "participantIdentity": "b", "ttl": null}', {}),
    ],
)
async def test_input_is_proto3_json(surface: Surface, body: bytes, expected: dict[str, Any]) -> None:
    """Both casings, unknown fields ignored, numbers as text."""
    status, _, _ = await post(surface, f"{ROOMS}/CreateToken", body)
    assert status == 200
    wanted = room_pb2.CreateTokenRequest(room_name="a", participant_identity="b", **expected)
    assert surface.recorder.calls[-1].request == wanted


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{} {}", b"\xff", b"{"])
async def test_malformed(surface: Surface, body: bytes) -> None:
    status, answer, _ = await post(surface, f"{ROOMS}/ListRooms", body)
    assert (status, answer["code"]) == (400, "malformed")
    status, answer, _ = await post(surface, f"{ROOMS}/CreateToken", b"\xff\xff\xff", "application/protobuf")
    assert (status, answer["code"]) == (400, "malformed")


async def test_both_casings_at_once_are_refused(surface: Surface) -> None:
    body = b'{"room_name": "a", "roomName": "b", "participant_identity": "b"}'
    status, answer, _ = await post(surface, f"{ROOMS}/CreateToken", body)
    assert (status, answer["code"], answer["meta"]) == (400, "invalid_argument", {"field": "roomName"})


async def test_empty_protobuf(surface: Surface) -> None:
    """An empty message is an empty body, both ways."""
    headers = {**headers_for(), "content-type": "application/protobuf"}
    async with surface.session.post(surface.http + f"{ROOMS}/ListRooms", data=b"", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers["content-type"] == "application/protobuf"


async def test_generated_asyncio_client(surface: Surface) -> None:
    surface.recorder.answers["GetRoom"] = lambda request, _c: room_pb2.Room(name=request.name, sid="RM_1")
    async with AsyncRoomServiceClient(surface.http) as client:
        room = await client.GetRoom(
            ctx=Context(), request=room_pb2.GetRoomRequest(name="a b"), headers=headers_for()
        )
        assert (room.name, room.sid) == ("a b", "RM_1")
        with pytest.raises(TwirpServerException) as refused:
            await client.GetRoom(ctx=Context(), request=room_pb2.GetRoomRequest(), headers=headers_for())
    assert refused.value.code is Errors.InvalidArgument
    assert refused.value.message == "name: is required"
    assert refused.value.meta == {"field": "name"}


async def test_generated_blocking_client(surface: Surface) -> None:
    surface.recorder.answers["GetRoom"] = lambda request, _c: room_pb2.Room(name=request.name)

    def call() -> Any:
        client = RoomServiceClient(surface.http, timeout=5)
        return client.GetRoom(
            ctx=Context(),
            request=room_pb2.GetRoomRequest(name="a"),
            headers={"authorization": f"Bearer {KEY}"},
        )

    assert (await asyncio.to_thread(call)).name == "a"


async def test_the_package_leaves_our_logging_alone(surface: Surface) -> None:
    """Its context configures structlog unless it is given a logger; ours redacts, its would not."""
    before = structlog.get_config()
    await post(surface, f"{ROOMS}/ListRooms")
    assert structlog.get_config() == before
