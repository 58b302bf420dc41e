"""The clients that `lk` and LiveKit's Go SDK are made of, unmodified, against LiveKit and against us; and our own Go stubs.

`lk room|token|egress` and the Go SDK add flags, printing and signing to the generated clients and the token builder of
LiveKit's protocol module; `go/` calls these.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
from livekit import api, rtc
from livekit.protocol import room as pb

from tests.conftest import Eventually
from tests.livekit.go_client import answers, built_client
from tests.livekit.sides import Side, reduced, sides
from tests.livekit.stage import OTHERS, OWN, THIRDS, LiveKitStage, Pair
from tests.livekit.test_sdks import with_alice
from tests.servers.bax import API_KEY, PROJECT, bax_server

# The first of them fetches modules and compiles for a minute or two, longer where the machine is busy.
pytestmark = pytest.mark.timeout(1000)

# The room calls that are to fail, in LiveKit as well as here, and how.
_REFUSED = {
    "rpc": "invalid_argument",
    "forward": "unknown",
    "move": "unknown",
    "long room name": "invalid_argument",
    "nobody": "not_found",
    "no identity": "not_found",
    "long name": "invalid_argument",
    "short nonce": "invalid_argument",
    "another room": "unauthenticated",
    "joins only": "unauthenticated",
    "no grant": "unauthenticated",
    "wrong secret": "unauthenticated",
    "remove nobody": "not_found",
    "delete missing": "not_found",
}
_CHOSEN = re.compile(r"(?<=\")(EG|RM)_\w+|(?<=\")\d{19}(?=\")")


@pytest.fixture(scope="session")
def client() -> Path:
    return built_client()


async def room_calls(client: Path, side: Side, door: str, address: str, eventually: Eventually) -> Any:
    """What each gave, LiveKit's own choices reduced to their types."""
    async with with_alice(side, eventually):
        told = await answers(
            client, "rooms", door, address, side.pair.api_key, side.pair.api_secret, side.room
        )
    return without_token(reduced(told, side.room))


def without_token(told: Any) -> Any:
    """LiveKit repeats a token that it refuses, we do not (docs/rooms.md)."""
    for name, answer in told:
        if name == "wrong secret":
            (answer.get("meta") or {}).pop("body", None)
    return told


def as_grpc(told: Any) -> Any:
    """Twirp's answers as gRPC would give them: a status has no meta, and a refused token no HTTP around it."""
    shown = []
    for name, answer in told:
        kept = {key: value for key, value in answer.items() if key != "meta"}
        shown.append([name, {"code": kept["code"]} if name == "wrong secret" else kept])
    return shown


@pytest.mark.parametrize("door", ["twirp", "json"])
async def test_rooms_as_livekit_answers(
    client: Path, stage: LiveKitStage, eventually: Eventually, door: str
) -> None:
    """LK-06: every operation and bad input of RoomService gives what LiveKit gives: messages, codes, texts, meta."""
    theirs, *ours = [
        (side.name, await room_calls(client, side, door, side.base, eventually))
        for side in sides(stage, f"go-{door}")
    ]
    assert {name: told["code"] for name, told in theirs[1] if "code" in told} == _REFUSED
    for name, told in ours:
        assert told == theirs[1], name


async def test_rooms_over_grpc(client: Path, stage: LiveKitStage, eventually: Eventually) -> None:
    """LK-02: the same over our gRPC, which LiveKit does not have, as LiveKit answers Twirp."""
    direct, *ours = sides(stage, "go-grpc")
    theirs = as_grpc(await room_calls(client, direct, "twirp", direct.base, eventually))
    for side in ours:
        told = await room_calls(client, side, "grpc", stage.grpc_address, eventually)
        assert as_grpc(told) == theirs, side.name


@pytest.mark.parametrize("pair", [OWN, OTHERS], ids=["bootstrap", "other"])
async def test_tokens(client: Path, stage: LiveKitStage, eventually: Eventually, pair: Pair) -> None:
    """A join token of LiveKit's Go builder says what the Python builder's says, and opens the room with it."""
    room = "go-token"
    ((_, token),) = await answers(client, "token", pair.api_key, pair.api_secret, room, "gopher")
    grants = api.VideoGrants(room_join=True, room=room, can_publish_data=False)
    python = api.AccessToken(pair.api_key, pair.api_secret).with_identity("gopher").with_grants(grants)
    claims, expected = (
        jwt.decode(text, pair.api_secret, algorithms=["HS256"]) for text in (token, python.to_jwt())
    )
    assert {key: claims[key] for key in ("iss", "sub")} == {key: expected[key] for key in ("iss", "sub")}
    assert claims["video"].items() <= expected["video"].items()
    gopher = rtc.Room()
    await gopher.connect(stage.url.replace("http", "ws", 1), token)
    try:
        async with api.LiveKitAPI(stage.url, pair.api_key, pair.api_secret) as lk:
            who = pb.RoomParticipantIdentity(room=room, identity="gopher")

            async def inside() -> Any:
                return await lk.room.get_participant(who)

            seen = await eventually(inside)
    finally:
        await gopher.disconnect()
    assert (gopher.name, seen.name, seen.metadata) == (room, "From Go", "by the Go client")
    assert dict(seen.attributes) == {"language": "go"}
    assert (seen.permission.can_publish, seen.permission.can_publish_data) == (True, False)


@pytest.mark.parametrize("door", ["twirp", "json", "grpc"])
@pytest.mark.parametrize("pair", [OWN, OTHERS], ids=["bootstrap", "other"])
async def test_egress(client: Path, stage: LiveKitStage, door: str, pair: Pair) -> None:
    """LK-04, LK-06, LK-48, LK-53, LK-56, LK-58, LK-60: the document's Go samples, every start, and what is refused."""
    address = stage.grpc_address if door == "grpc" else stage.url
    room = "my-room"
    told = dict(await answers(client, "egress", door, address, pair.api_key, pair.api_secret, room))
    refused = {name: (one["code"], one["message"]) for name, one in told.items() if "code" in one}
    assert refused == {
        "no stream to update": ("invalid_argument", "UpdateStream called on non-streaming egress"),
        "missing room": ("not_found", "requested room does not exist"),
        "no output": ("invalid_argument", "request has missing or invalid field: output"),
        "stop missing": ("not_found", "egress does not exist"),
        "update missing layout": ("not_found", "egress does not exist"),
        "update missing stream": ("not_found", "egress does not exist"),
        "no grant": ("unauthenticated", "permissions denied"),
    }
    samples(told, room)
    starts(told, room)


def samples(told: dict[str, Any], room: str) -> None:
    """What the document's samples gave."""
    info = told["stream"]
    assert info["egressId"].startswith("EG_")
    assert (info["roomId"], info["roomName"]) == (told["room"]["sid"], room)
    # What has number 0 is left out: EGRESS_STARTING, and ACTIVE of a stream.
    assert "status" not in info
    twitch, youtube = "rtmp://live.twitch.tv/app/{<st...ey>}", "rtmp://a.rtmp.youtube.com/live2/{<st...ey>}"
    assert info["roomComposite"] == {
        "roomName": room, "layout": "speaker", "stream": {"protocol": "RTMP", "urls": [twitch]},
    }  # fmt: skip
    assert info["streamResults"] == [{"url": twitch}]
    assert told["update stream"]["streamResults"] == [{"url": twitch}, {"url": youtube}]
    assert told["update layout"]["roomComposite"]["layout"] == "grid-light"
    assert told["list"]["items"] == [told["update layout"]]
    assert told["stop"]["egressId"] == info["egressId"]
    assert told["stop"]["status"] == "EGRESS_ABORTED"
    assert "<stream-key>" not in json.dumps(told)


def starts(told: dict[str, Any], room: str) -> None:
    """What the other start calls gave: the request in its own field, without its secrets, and how lists show them."""
    fields = {
        "room composite": "roomComposite", "participant": "participant", "track composite": "trackComposite",
        "track": "track", "web": "web", "start": "egress",
    }  # fmt: skip
    for name, field in fields.items():
        assert told[name]["egressId"].startswith("EG_"), name
        assert told[name].get("roomId", "") == ("" if name == "web" else told["room"]["sid"]), name
        assert told[name][field].get("roomName", room) == room, name
    composite = told["room composite"]["roomComposite"]
    assert composite["preset"] == "H264_1080P_30"
    assert composite["fileOutputs"][0]["s3"] == {
        "accessKey": "{access_key}", "secret": "{secret}", "bucket": "<bucket>", "region": "<bucket-region>",
    }  # fmt: skip
    assert composite["segmentOutputs"][0]["segmentDuration"] == 2
    assert composite["imageOutputs"][0]["captureInterval"] == 5
    assert told["track"]["track"]["websocketUrl"] == "wss://example.com/in"
    assert told["start"]["egress"]["template"] == {"layout": "grid"}
    in_room = [told[name] for name in reversed(fields) if name != "web"]
    assert told["list of room"]["items"] == in_room
    assert told["list one"]["items"] == [told["start"]]


async def test_egress_is_the_same_through_every_door(client: Path, stage: LiveKitStage) -> None:
    """LK-02: protobuf, JSON and gRPC give one answer, each to a project of its own."""
    told = []
    for door, address, pair in (
        ("twirp", stage.url, OWN),
        ("json", stage.url, OTHERS),
        ("grpc", stage.grpc_address, THIRDS),
    ):
        calls = await answers(client, "egress", door, address, pair.api_key, pair.api_secret, "hall")
        for _, answer in calls:
            answer.pop("meta", None)
        told.append(_CHOSEN.sub("…", json.dumps(calls[1:])))
    assert told[1] == told[0]
    assert told[2] == told[0]


async def test_generated_go_stubs(client: Path, tmp_path: Path) -> None:
    """GN: `generated/go` compiles, and calls baxcloud.v1: unary, refused by field, client and server streaming."""
    with bax_server(tmp_path / "bax") as server:
        told = dict(await answers(client, "stubs", server.grpc_address, API_KEY, PROJECT))
        project = server.call("GET", f"/v1/projects/{PROJECT}").json
        job = server.call("GET", f"/video/jobs/{told['upload']['id']}").json
        refused = server.call(
            "POST", "/video/convert", {"inputUrl": "https://example.com/a.mp4", "hlsTime": 11}
        ).json
    assert (told["project"]["id"], told["project"]["name"]) == (PROJECT, project["name"])
    assert told["refused"] == {"code": "invalid_argument", "message": refused["error"]["message"]}
    assert told["refused field"] == "hlsTime"
    assert told["upload"]["inputUrl"] == "upload://from-go.mp4"
    assert told["ended"]["id"] == told["upload"]["id"]
    assert (told["ended"]["status"], told["ended"]["errorCode"]) == ("FAILED", "UNSUPPORTED_FORMAT")
    assert (job["status"], job["errorCode"]) == ("FAILED", "UNSUPPORTED_FORMAT")
