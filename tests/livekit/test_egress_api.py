"""`livekit.Egress` over HTTP and gRPC, in front of a real LiveKit; without a worker, so nothing is recorded (LK)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.domain.egress import Egress, EgressStatus, Results, StreamStatus
from tests.livekit.stage import BOOTSTRAP, OTHERS, OWN, Answer, LiveKitStage, Pair

RECORD = {"roomRecord": True}
FILE = {"file_outputs": [{"filepath": "a.mp4"}]}
YOUTUBE = "rtmp://a.rtmp.youtube.com/live2/first-key"
TWITCH = "rtmp://live.twitch.tv/app/second-key"
RTMP = {"stream_outputs": [{"protocol": "RTMP", "urls": [YOUTUBE]}]}
ROOM = "hall"


async def open_room(stage: LiveKitStage, name: str, pair: Pair = OWN) -> str:
    """Its sid."""
    answer = await stage.ask("RoomService/CreateRoom", {"name": name}, pair.token({"roomCreate": True}))
    sid: str = answer.json["sid"]
    return sid


@pytest.fixture
async def hall(stage: LiveKitStage) -> LiveKitStage:
    """With a room."""
    await open_room(stage, ROOM)
    return stage


async def egress(stage: LiveKitStage, method: str, body: Mapping[str, Any], pair: Pair = OWN) -> Answer:
    return await stage.ask(f"Egress/{method}", body, pair.token(RECORD))


async def done(stage: LiveKitStage, method: str, body: Mapping[str, Any], pair: Pair = OWN) -> Any:
    answer = await egress(stage, method, body, pair)
    assert answer.status == 200, answer.body
    return answer.json


async def recorded(stage: LiveKitStage, **more: Any) -> str:
    """The id of a room composite."""
    body = {"room_name": ROOM, **(more or FILE)}
    egress_id: str = (await done(stage, "StartRoomCompositeEgress", body))["egress_id"]
    return egress_id


async def refused(stage: LiveKitStage, method: str, body: Mapping[str, Any]) -> tuple[int, str, str]:
    answer = await egress(stage, method, body)
    assert answer.content_type == "application/json"
    return answer.status, answer.json["code"], answer.json["msg"]


async def become(stage: LiveKitStage, egress_id: str, **changes: Any) -> Egress:
    """What a worker would have made of it."""
    async with stage.database.begin() as tx:
        stored = await tx.egresses.get(BOOTSTRAP, egress_id, lock=True)
        assert stored is not None
        changed = replace(stored, **changes)
        await tx.egresses.save(changed)
        await tx.commit()
    return changed


async def test_room_composite_from_start_to_stop(stage: LiveKitStage) -> None:
    """LK-05, LK-07, LK-56, LK-58: started, listed, stopped."""
    sid = await open_room(stage, "town")
    info = await done(stage, "StartRoomCompositeEgress", {"room_name": "town", "layout": "speaker", **FILE})
    assert info["egress_id"].startswith("EG_")
    assert len(info["egress_id"]) == 15
    assert (info["room_id"], info["room_name"], info["status"]) == (sid, "town", "EGRESS_STARTING")
    assert info["room_composite"]["layout"] == "speaker"
    assert int(info["started_at"]) == int(info["updated_at"]) > 1_700_000_000 * 10**9
    listed = await done(stage, "ListEgress", {})
    assert [one["egress_id"] for one in listed["items"]] == [info["egress_id"]]
    await done(stage, "StopEgress", {"egress_id": info["egress_id"]})


@pytest.mark.parametrize(
    ("method", "field", "body"),
    [
        ("StartParticipantEgress", "participant", {"room_name": ROOM, "identity": "ann", **FILE}),
        (
            "StartTrackCompositeEgress",
            "track_composite",
            {"room_name": ROOM, "video_track_id": "TR_v", **FILE},
        ),
        (
            "StartTrackEgress",
            "track",
            {"room_name": ROOM, "track_id": "TR_a", "file": {"filepath": "{track_id}"}},
        ),
        ("StartTrackEgress", "track", {"room_name": ROOM, "track_id": "TR_a", "websocket_url": "wss://h/in"}),
        ("StartWebEgress", "web", {"url": "https://example.com", "audio_only": True, **FILE}),
        (
            "StartEgress",
            "egress",
            {"room_name": ROOM, "template": {"layout": "grid"}, "outputs": [{"file": {}}]},
        ),
    ],
)
async def test_every_start(hall: LiveKitStage, method: str, field: str, body: Mapping[str, Any]) -> None:
    """LK-20, LK-31, LK-37 and the two that the seed leaves out: STARTING, with the request in its own field."""
    info = await done(hall, method, body)
    assert info["status"] == "EGRESS_STARTING"
    shown = json_format.ParseDict(info[field], type(getattr(pb.EgressInfo(), field))())
    assert shown == json_format.ParseDict(dict(body), type(shown)())
    assert (info["room_id"] != "") == ("room_name" in body)


async def test_rooms_of_another_project_do_not_exist(stage: LiveKitStage) -> None:
    """LK-08: and an answer never shows LiveKit's own name of a room."""
    await open_room(stage, "shared", OTHERS)
    body = {"room_name": "shared", **FILE}
    assert (await refused(stage, "StartRoomCompositeEgress", body))[:2] == (404, "not_found")
    answer = await egress(stage, "StartRoomCompositeEgress", body, OTHERS)
    assert answer.status == 200
    assert b"bax:" not in answer.body
    info = answer.json
    assert info["room_name"] == "shared"
    for method in ("StopEgress", "UpdateLayout", "UpdateStream", "ListEgress"):
        told = await refused(stage, method, {"egress_id": info["egress_id"], "layout": "grid"})
        assert told == (404, "not_found", "egress does not exist"), method


async def test_grants(hall: LiveKitStage) -> None:
    """LK-01, B-82: 401 `permissions denied` without the grant and without a token."""
    for token in (OWN.token({"roomAdmin": True, "room": ROOM}), None):
        answer = await hall.ask("Egress/ListEgress", {}, token)
        assert (answer.status, answer.json["code"], answer.json["msg"]) == (
            401, "unauthenticated", "permissions denied",
        )  # fmt: skip


async def test_the_room_comes_before_the_request(hall: LiveKitStage) -> None:
    """1.5: LiveKit looks for the room first; a name that nobody can have does not exist either."""
    for name in ("nowhere", "bax:cl_other:shared"):
        told = await refused(hall, "StartRoomCompositeEgress", {"room_name": name, "file_outputs": [{}, {}]})
        assert told == (404, "not_found", "requested room does not exist")
    told = await refused(hall, "StartRoomCompositeEgress", {"room_name": ROOM, "file_outputs": [{}, {}]})
    assert told == (400, "invalid_argument", "request has missing or invalid field: multiple file outputs")
    told = await refused(hall, "StartRoomCompositeEgress", FILE)
    assert told == (400, "invalid_argument", "request has missing or invalid field: room_name")


async def test_what_json_cannot_say(hall: LiveKitStage) -> None:
    """LK-17, LK-34, LK-63: two of a oneof are no request."""
    for method, body in (
        ("StartRoomCompositeEgress", {"preset": "H264_720P_30", "advanced": {}, **FILE}),
        ("StartRoomCompositeEgress", {"file_outputs": [{"s3": {"bucket": "b"}, "gcp": {"bucket": "b"}}]}),
        ("StartTrackEgress", {"track_id": "T", "file": {}, "websocket_url": "ws://h"}),
    ):
        assert (await refused(hall, method, {"room_name": ROOM, **body}))[:2] == (400, "malformed")


async def test_image_suffixes_by_the_seeds_names(hall: LiveKitStage) -> None:
    """LK-88, B-40: both spellings."""
    for suffix in ("TIMESTAMP", "IMAGE_SUFFIX_TIMESTAMP", 1):
        body = {"room_name": ROOM, "image_outputs": [{"filename_suffix": suffix}]}
        info = await done(hall, "StartRoomCompositeEgress", body)
        assert info["room_composite"]["image_outputs"][0]["filename_suffix"] == "IMAGE_SUFFIX_TIMESTAMP"


async def test_listing(hall: LiveKitStage) -> None:
    """LK-56, LK-57, B-40: what runs, of a room or of all; by id also what has ended."""
    await open_room(hall, "second")
    first, ended = await recorded(hall), await recorded(hall)
    other = (await done(hall, "StartRoomCompositeEgress", {"room_name": "second", **FILE}))["egress_id"]
    await become(hall, ended, status=EgressStatus.COMPLETE)

    async def listed(body: Mapping[str, Any]) -> set[str]:
        return {one["egress_id"] for one in (await done(hall, "ListEgress", body))["items"]}

    assert await listed({}) == await listed({"active": True}) == {first, other}
    assert await listed({"room_name": "second"}) == {other}
    assert await listed({"room_name": "nowhere"}) == set()
    assert await listed({"egress_id": ended, "active": True, "room_name": "second"}) == {ended}
    assert (await refused(hall, "ListEgress", {"egress_id": "EG_nothing"}))[:2] == (404, "not_found")


async def test_many_egresses_are_listed_whole(hall: LiveKitStage) -> None:
    stored = await become(hall, await recorded(hall))
    async with hall.database.begin() as tx:
        orders, secrets = await tx.egresses.orders(stored.id), await tx.egresses.secrets(stored.id)
        for number in range(520):
            await tx.egresses.add(replace(stored, id=f"EG_{number}"), orders, secrets)
        await tx.commit()
    assert len((await done(hall, "ListEgress", {}))["items"]) == 521


async def test_stopping(hall: LiveKitStage) -> None:
    """LK-58, LK-59: at once, again while it ends, not after."""
    egress_id = await recorded(hall)
    await become(hall, egress_id, status=EgressStatus.ACTIVE)
    for _ in range(2):
        info = await done(hall, "StopEgress", {"egress_id": egress_id})
        assert (info["status"], info["details"]) == ("EGRESS_ENDING", "End reason: StopEgress API")
    await become(hall, egress_id, status=EgressStatus.COMPLETE)
    told = await refused(hall, "StopEgress", {"egress_id": egress_id})
    assert told == (412, "failed_precondition", "egress with status EGRESS_COMPLETE cannot be stopped")
    assert (await refused(hall, "StopEgress", {"egress_id": "EG_nothing"}))[:2] == (404, "not_found")
    assert (await refused(hall, "StopEgress", {}))[:2] == (400, "invalid_argument")


async def test_changing_the_layout(hall: LiveKitStage) -> None:
    """LK-48, LK-49, LK-50: shown in the answer and by ListEgress; ordered of the recorder."""
    egress_id = await recorded(hall, layout="grid", **FILE)
    info = await done(hall, "UpdateLayout", {"egress_id": egress_id, "layout": "speaker-light"})
    assert info["room_composite"]["layout"] == "speaker-light"
    listed = await done(hall, "ListEgress", {"egress_id": egress_id})
    assert listed["items"][0]["room_composite"]["layout"] == "speaker-light"
    async with hall.database.read() as tx:
        assert (await tx.egresses.orders(egress_id)).layout == "speaker-light"
    for body in ({"layout": "grid"}, {"egress_id": egress_id}):
        assert (await refused(hall, "UpdateLayout", body))[:2] == (400, "invalid_argument")
    told = await refused(hall, "UpdateLayout", {"egress_id": "EG_nothing", "layout": "grid"})
    assert told[:2] == (404, "not_found")
    who = {"room_name": ROOM, "identity": "ann", **FILE}
    participant = (await done(hall, "StartParticipantEgress", who))["egress_id"]
    for other, status in ((participant, EgressStatus.ACTIVE), (egress_id, EgressStatus.FAILED)):
        await become(hall, other, status=status)
        told = await refused(hall, "UpdateLayout", {"egress_id": other, "layout": "grid"})
        assert told[:2] == (412, "failed_precondition")


async def urls_of(stage: LiveKitStage, egress_id: str) -> list[str]:
    """Where its owner is to stream to."""
    async with stage.database.read() as tx:
        return [one.url for one in (await tx.egresses.orders(egress_id)).destinations]


async def test_adding_and_removing_streams(hall: LiveKitStage) -> None:
    """LK-51, LK-54, LK-55: results show every address, without its key."""
    egress_id = await recorded(hall, **RTMP)
    body: dict[str, Any] = {
        "egress_id": egress_id,
        "add_output_urls": [TWITCH, YOUTUBE],
        "remove_output_urls": [YOUTUBE],
    }
    answer = await egress(hall, "UpdateStream", body)
    assert answer.status == 200
    assert b"first-key" not in answer.body
    assert b"second-key" not in answer.body
    results = answer.json["stream_results"]
    assert [one["url"] for one in results] == [
        "rtmp://a.rtmp.youtube.com/live2/{fir...key}", "rtmp://live.twitch.tv/app/{sec...key}",
    ]  # fmt: skip
    assert results[1]["status"] == "ACTIVE"
    assert await urls_of(hall, egress_id) == [TWITCH]
    named = [{"id": "mux", "url": "mux://third-key"}]
    info = await done(hall, "UpdateStream", {"egress_id": egress_id, "add_destinations": named})
    assert info["stream_results"][2]["id"] == "mux"
    await done(hall, "UpdateStream", {"egress_id": egress_id, "remove_output_urls": ["mux://third-key"]})
    assert await urls_of(hall, egress_id) == [TWITCH]


async def test_destinations_come_and_go_without_end(hall: LiveKitStage) -> None:
    """At most 50 at a time, however many there were before."""
    egress_id = await recorded(hall, **RTMP)
    many = [f"rtmp://h/app/key-{number}" for number in range(49)]
    await done(hall, "UpdateStream", {"egress_id": egress_id, "add_output_urls": many})
    more: dict[str, Any] = {"egress_id": egress_id, "add_output_urls": ["rtmp://h/app/key-49"]}
    told = await refused(hall, "UpdateStream", more)
    assert told == (400, "invalid_argument", "request has missing or invalid field: stream url (at most 50)")
    await done(hall, "UpdateStream", {**more, "remove_output_urls": [YOUTUBE]})
    assert await urls_of(hall, egress_id) == [*many, "rtmp://h/app/key-49"]


async def test_what_can_be_done_is_done(hall: LiveKitStage) -> None:
    """1.5: each address has its own error, the first one's code counts, no key is in any."""
    egress_id = await recorded(hall, **RTMP)
    body = {
        "egress_id": egress_id,
        "add_output_urls": ["http://h/app/bad-key", TWITCH, "srt://h:9000?streamid=bad-key"],
        "remove_output_urls": ["rtmp://h/app/missing-key", YOUTUBE, "missing-key"],
    }
    status, code, message = await refused(hall, "UpdateStream", body)
    assert (status, code) == (400, "invalid_argument")
    assert "-key" not in message.replace("rtmp://h/app/{mis...key}", "")
    assert [line.split(" ")[0] for line in message.split("\n")] == ["invalid", "invalid", "stream", "stream"]
    assert await urls_of(hall, egress_id) == [TWITCH]
    missing = {"egress_id": egress_id, "remove_output_urls": ["rtmp://h/app/missing-key"]}
    told = await refused(hall, "UpdateStream", missing)
    assert told == (404, "not_found", "stream rtmp://h/app/{mis...key} not found")


async def test_streams_of_what_has_none(hall: LiveKitStage) -> None:
    """LK-52, LK-53: a file, a websocket, one that has ended."""
    add = {"add_output_urls": [TWITCH]}
    socket = {"room_name": ROOM, "track_id": "TR_a", "websocket_url": "wss://h/in"}
    ended = await recorded(hall, **RTMP)
    await become(hall, ended, status=EgressStatus.COMPLETE)
    no_streams = (400, "invalid_argument", "UpdateStream called on non-streaming egress")
    file = await recorded(hall)
    track = (await done(hall, "StartTrackEgress", socket))["egress_id"]
    assert await refused(hall, "UpdateStream", {"egress_id": file, **add}) == no_streams
    assert await refused(hall, "UpdateStream", {"egress_id": track, **add}) == no_streams
    told = await refused(hall, "UpdateStream", {"egress_id": ended, **add})
    assert told == (412, "failed_precondition", "egress with status EGRESS_COMPLETE cannot be updated")
    assert (await refused(hall, "UpdateStream", add))[:2] == (400, "invalid_argument")


async def test_results_as_json(hall: LiveKitStage) -> None:
    """B-80: snake_case, enums by name, 64-bit numbers as texts, defaults written out."""
    egress_id = await recorded(hall, **RTMP)
    egress_now = await become(hall, egress_id)
    failed = replace(egress_now.results.streams[0], status=StreamStatus.FAILED, ended_at=9, error="refused")
    await become(hall, egress_id, results=Results(streams=(failed,)))
    item = (await done(hall, "ListEgress", {"egress_id": egress_id}))["items"][0]
    assert item["stream_results"][0] == {
        "url": "rtmp://a.rtmp.youtube.com/live2/{fir...key}", "started_at": "0", "ended_at": "9", "duration": "0",
        "status": "FAILED", "error": "refused", "last_retry_at": "0", "retries": 0, "id": failed.id,
    }  # fmt: skip
    assert item["stream"]["info"] == item["stream_results"]
    assert (item["error"], item["error_code"], item["retry_count"]) == ("", 0, 0)


async def test_signing_keys_are_the_projects(hall: LiveKitStage) -> None:
    """LK-139: an unknown key and another project's are refused; none means the caller's own."""
    for key in ("APInobody", OTHERS.api_key):
        webhooks = [{"url": "https://example.com/hook", "signing_key": key}]
        told = await refused(
            hall, "StartRoomCompositeEgress", {"room_name": ROOM, "webhooks": webhooks, **FILE}
        )
        assert told == (400, "invalid_argument", "request has missing or invalid field: webhook signing_key")
    egress_id = await recorded(hall, webhooks=[{"url": "https://example.com/hook"}], **FILE)
    async with hall.database.read() as tx:
        webhook = (await tx.egresses.secrets(egress_id)).webhooks[0]
    assert (webhook.signing_key, webhook.secret) == (OWN.api_key, OWN.api_secret)
    info = await done(hall, "ListEgress", {"egress_id": egress_id})
    assert OWN.api_secret not in json.dumps(info)


async def test_over_grpc(hall: LiveKitStage) -> None:
    """1.4: the same service objects, with gRPC's codes."""

    def method(channel: grpc.aio.Channel, name: str, reply: Any) -> Any:
        return channel.unary_unary(
            f"/livekit.Egress/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    metadata = (("authorization", f"Bearer {OWN.token(RECORD)}"),)
    async with grpc.aio.insecure_channel(hall.grpc_address) as channel:
        start = method(channel, "StartRoomCompositeEgress", pb.EgressInfo)
        request = pb.RoomCompositeEgressRequest(room_name=ROOM, file_outputs=[pb.EncodedFileOutput()])
        info = await start(request, metadata=metadata)
        assert info.status == pb.EGRESS_STARTING
        stop = method(channel, "StopEgress", pb.EgressInfo)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stop(pb.StopEgressRequest(egress_id="EG_nothing"), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await start(pb.RoomCompositeEgressRequest(room_name=ROOM), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "request has missing or invalid field: output"
