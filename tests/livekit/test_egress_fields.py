"""Every field of the seed's egress requests, row by row, over HTTP: taken, and shown in LiveKit's names (LK-07 and on)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from livekit.protocol import egress as pb

from tests.livekit.stage import OWN, LiveKitStage

ROOM = "fields"
RECORD = OWN.token({"roomRecord": True})
FILE = {"filepath": "a.mp4"}
# By the name under which EgressInfo shows the request: its method, and what it needs.
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "room_composite": ("StartRoomCompositeEgress", {"room_name": ROOM, "file_outputs": [FILE]}),
    "track_composite": (
        "StartTrackCompositeEgress",
        {"room_name": ROOM, "audio_track_id": "TR_a", "video_track_id": "TR_c", "file_outputs": [FILE]},
    ),
    "track": ("StartTrackEgress", {"room_name": ROOM, "track_id": "TR_a", "file": FILE}),
    "web": ("StartWebEgress", {"url": "https://example.com", "file_outputs": [FILE]}),
}
ADVANCED = {
    "width": 640, "height": 360, "depth": 24, "framerate": 25, "audio_codec": "OPUS", "audio_bitrate": 96,
    "audio_frequency": 48000, "video_codec": "H264_HIGH", "video_bitrate": 900, "key_frame_interval": 2.5,
}  # fmt: skip
WEBHOOKS = [{"url": "https://example.com/hook", "signing_key": OWN.api_key}]
SEGMENTS = {"filename_prefix": "p/s", "playlist_name": "p/l.m3u8"}
IMAGES = {"capture_interval": 5, "filename_prefix": "p/i"}
# Rows whose field is shown as it was sent: the request, and what is added to it.
SHOWN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "LK-08": ("room_composite", {"room_name": ROOM}),
    "LK-09": ("room_composite", {"layout": "speaker"}),
    "LK-10": ("room_composite", {"audio_only": True}),
    "LK-11": ("room_composite", {"video_only": True}),
    "LK-12": ("room_composite", {"custom_base_url": "https://example.com/template"}),
    "LK-17": ("room_composite", {"preset": "H264_1080P_30"}),
    "LK-18": ("room_composite", {"advanced": ADVANCED}),
    "LK-19": ("room_composite", {"webhooks": WEBHOOKS}),
    "LK-21": ("track_composite", {"room_name": ROOM}),
    "LK-22": ("track_composite", {"audio_track_id": "TR_b"}),
    "LK-23": ("track_composite", {"video_track_id": "TR_v"}),
    "LK-28": ("track_composite", {"preset": "H264_1080P_60"}),
    "LK-29": ("track_composite", {"advanced": ADVANCED}),
    "LK-30": ("track_composite", {"webhooks": WEBHOOKS}),
    "LK-32": ("track", {"room_name": ROOM}),
    "LK-33": ("track", {"track_id": "TR_b"}),
    "LK-34": ("track", {"file": {"filepath": "b"}}),
    "LK-36": ("track", {"webhooks": WEBHOOKS}),
    "LK-38": ("web", {"url": "https://example.com/page"}),
    "LK-39": ("web", {"audio_only": True}),
    "LK-40": ("web", {"video_only": True}),
    "LK-45": ("web", {"preset": "PORTRAIT_H264_720P_60"}),
    "LK-46": ("web", {"advanced": ADVANCED}),
    "LK-47": ("web", {"webhooks": WEBHOOKS}),
    "LK-61": ("room_composite", {"file_outputs": [{"filepath": "{room_name}-{time}"}]}),
    "LK-62": ("room_composite", {"file_outputs": [{"filepath": "a.mp4", "disable_manifest": True}]}),
    "LK-67": ("track", {"file": {"filepath": "{track_id}-{time}"}}),
    "LK-68": ("track", {"file": {"filepath": "a", "disable_manifest": True}}),
    "LK-73, LK-74": ("room_composite", {"segment_outputs": [SEGMENTS]}),
    "LK-75": ("room_composite", {"segment_outputs": [{**SEGMENTS, "segment_duration": 6}]}),
    "LK-76": ("room_composite", {"segment_outputs": [{**SEGMENTS, "filename_suffix": "TIMESTAMP"}]}),
    "LK-77": ("room_composite", {"segment_outputs": [{**SEGMENTS, "disable_manifest": True}]}),
    "LK-84, LK-87": ("room_composite", {"image_outputs": [IMAGES]}),
    "LK-85, LK-86": ("room_composite", {"image_outputs": [{**IMAGES, "width": 320, "height": 180}]}),
    "LK-88": ("room_composite", {"image_outputs": [{**IMAGES, "filename_suffix": "IMAGE_SUFFIX_TIMESTAMP"}]}),
    "LK-89": ("room_composite", {"image_outputs": [{**IMAGES, "image_codec": "IC_JPEG"}]}),
    "LK-90": ("room_composite", {"image_outputs": [{**IMAGES, "disable_manifest": True}]}),
}
# One entry is taken, two are not.
LISTS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "LK-13": ("room_composite", "file_outputs", FILE),
    "LK-14": ("room_composite", "segment_outputs", SEGMENTS),
    "LK-15": ("room_composite", "stream_outputs", {}),
    "LK-16": ("room_composite", "image_outputs", IMAGES),
    "LK-24": ("track_composite", "file_outputs", FILE),
    "LK-25": ("track_composite", "segment_outputs", SEGMENTS),
    "LK-26": ("track_composite", "stream_outputs", {}),
    "LK-27": ("track_composite", "image_outputs", IMAGES),
    "LK-41": ("web", "file_outputs", FILE),
    "LK-42": ("web", "segment_outputs", SEGMENTS),
    "LK-43": ("web", "stream_outputs", {}),
    "LK-44": ("web", "image_outputs", IMAGES),
}
# By storage: what is sent, and what is shown of it.
STORAGES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "s3": (
        {"access_key": "AKIA-hidden", "secret": "hidden-too", "bucket": "b", "region": "r"},
        {"access_key": "{access_key}", "secret": "{secret}", "bucket": "b", "region": "r"},
    ),
    "gcp": (
        {"credentials": '{"private_key": "hidden"}', "bucket": "b"},
        {"credentials": "{credentials}", "bucket": "b"},
    ),
    "azure": (
        {"account_name": "hidden", "account_key": "hidden-too", "container_name": "b"},
        {"account_name": "{account_name}", "account_key": "{account_key}", "container_name": "b"},
    ),
    "aliOSS": (
        {"access_key": "hidden", "secret": "hidden-too", "bucket": "b", "endpoint": "oss.example.com"},
        {"access_key": "{access_key}", "secret": "{secret}", "bucket": "b", "endpoint": "oss.example.com"},
    ),
}
# By output: the request and field that it stands in, and its row of each storage.
OUTPUTS: Mapping[str, tuple[str, str, Mapping[str, Any], Mapping[str, str]]] = {
    "EncodedFileOutput": (
        "room_composite", "file_outputs", FILE,
        {"s3": "LK-63", "gcp": "LK-64", "azure": "LK-65", "aliOSS": "LK-66"},
    ),
    "DirectFileOutput": (
        "track", "file", FILE,
        {"s3": "LK-69", "gcp": "LK-70", "azure": "LK-71", "aliOSS": "LK-72"},
    ),
    "SegmentedFileOutput": (
        "room_composite", "segment_outputs", SEGMENTS,
        {"s3": "LK-78", "gcp": "LK-79", "azure": "LK-80", "aliOSS": "LK-81"},
    ),
    "ImageOutput": (
        "room_composite", "image_outputs", IMAGES,
        {"s3": "LK-91", "gcp": "LK-92", "azure": "LK-93", "aliOSS": "LK-94"},
    ),
}  # fmt: skip
PRESETS: Mapping[str, tuple[str, int]] = {
    "LK-125": ("H264_720P_30", 0),
    "LK-126": ("H264_720P_60", 1),
    "LK-127": ("H264_1080P_30", 2),
    "LK-128": ("H264_1080P_60", 3),
    "LK-129": ("PORTRAIT_H264_720P_30", 4),
    "LK-130": ("PORTRAIT_H264_720P_60", 5),
    "LK-131": ("PORTRAIT_H264_1080P_30", 6),
    "LK-132": ("PORTRAIT_H264_1080P_60", 7),
}


@pytest.fixture
async def room(stage: LiveKitStage) -> LiveKitStage:
    """With a room to record."""
    answer = await stage.ask("RoomService/CreateRoom", {"name": ROOM}, OWN.token({"roomCreate": True}))
    assert answer.status == 200
    return stage


async def start(stage: LiveKitStage, kind: str, more: Mapping[str, Any]) -> tuple[int, Any]:
    """The status, and the request as it is shown or the error."""
    method, body = KINDS[kind]
    answer = await stage.ask(f"Egress/{method}", {**body, **more}, RECORD)
    return answer.status, answer.json[kind] if answer.status == 200 else answer.json


def differences(shown: Any, sent: Any) -> list[str]:
    """What of `sent` is not in `shown`."""
    if isinstance(sent, Mapping):
        return [one for key, value in sent.items() for one in differences(shown.get(key), value)]
    if isinstance(sent, list):
        pairs = zip(shown or [None], sent, strict=True)
        return [one for pair in pairs for one in differences(*pair)]
    return [] if shown == sent else [f"{sent!r} became {shown!r}"]


async def test_fields_are_taken_and_shown(room: LiveKitStage) -> None:
    """The rows of SHOWN."""
    wrong = {}
    for row, (kind, more) in SHOWN.items():
        status, shown = await start(room, kind, more)
        if status != 200 or differences(shown, more):
            wrong[row] = (status, shown)
    assert wrong == {}


async def test_lists_hold_one_output(room: LiveKitStage) -> None:
    """The rows of LISTS; one stream output may well have several addresses."""
    urls = [f"rtmp://live.example.com/app/key-{number}" for number in range(3)]
    for row, (kind, name, output) in LISTS.items():
        entry = output or {"protocol": "RTMP", "urls": urls}
        status, shown = await start(room, kind, {name: [entry]})
        assert status == 200, (row, shown)
        assert len(shown[name]) == 1
        if not output:
            assert len(shown[name][0]["urls"]) == 3
        status, refused = await start(room, kind, {name: [entry, entry]})
        assert (status, refused["code"]) == (400, "invalid_argument"), row
        assert "multiple" in refused["msg"]


@pytest.mark.parametrize("name", list(OUTPUTS))
async def test_storages_of_each_output(room: LiveKitStage, name: str) -> None:
    """The rows of OUTPUTS: each storage is taken and shown without its secrets, and two at once are not taken."""
    kind, field, output, rows = OUTPUTS[name]

    def body(*storages: str) -> Mapping[str, Any]:
        whole = {**output, **{one: STORAGES[one][0] for one in storages}}
        return {field: whole if kind == "track" else [whole]}

    assert set(rows) == set(STORAGES)
    for storage, row in rows.items():
        status, shown = await start(room, kind, body(storage))
        assert status == 200, (row, shown)
        place = shown[field] if kind == "track" else shown[field][0]
        assert differences(place[storage], STORAGES[storage][1]) == [], row
        assert "hidden" not in str(shown), row
    status, refused = await start(room, kind, body("s3", "gcp"))
    assert (status, refused["code"]) == (400, "malformed")


async def test_proxies_are_for_s3_and_gcp(room: LiveKitStage) -> None:
    """LK-103, LK-106, LK-133, LK-134, LK-135, LK-136: taken, shown without its login; the others have no such field."""
    proxy = {"url": "http://proxy.example.com:3128", "username": "hidden", "password": "hidden-too"}
    having = {
        kind.name
        for kind in pb.StorageConfig.DESCRIPTOR.fields
        if kind.message_type is not None and "proxy" in kind.message_type.fields_by_name
    }
    assert having == {"s3", "gcp"}
    for storage, (sent, _) in STORAGES.items():
        body = {"file_outputs": [{**FILE, storage: {**sent, "proxy": proxy}}]}
        status, shown = await start(room, "room_composite", body)
        assert status == 200, shown
        upload = shown["file_outputs"][0][storage]
        assert ("proxy" in upload) == (storage in having)
        if storage in having:
            assert upload["proxy"]["url"] == proxy["url"]
        assert "hidden" not in str(shown)


async def test_presets_by_name_and_number(room: LiveKitStage) -> None:
    """The rows of PRESETS: both are taken, the name is shown."""
    for row, (name, number) in PRESETS.items():
        for given in (name, number):
            status, shown = await start(room, "track_composite", {"preset": given})
            assert (status, shown["preset"]) == (200, name), row


async def test_a_preset_or_advanced_options(room: LiveKitStage) -> None:
    """LK-17, LK-28, LK-45: never both."""
    for kind in ("room_composite", "track_composite", "web"):
        both = {"preset": "H264_720P_30", "advanced": ADVANCED}
        status, refused = await start(room, kind, both)
        assert (status, refused["code"]) == (400, "malformed"), kind


async def test_what_is_missing(room: LiveKitStage) -> None:
    """LK-08, LK-21, LK-32, LK-33, LK-38, LK-49, LK-53: invalid, and named."""
    for kind, missing in (
        ("room_composite", {"room_name": ""}),
        ("track_composite", {"room_name": ""}),
        ("track", {"room_name": ""}),
        ("track", {"track_id": ""}),
        ("web", {"url": ""}),
    ):
        status, refused = await start(room, kind, missing)
        assert (status, refused["code"]) == (400, "invalid_argument"), (kind, missing)
    for method in ("UpdateLayout", "UpdateStream", "StopEgress"):
        answer = await room.ask(f"Egress/{method}", {"layout": "grid"}, RECORD)
        assert (answer.status, answer.json["code"]) == (400, "invalid_argument"), method
        assert answer.json["msg"].endswith("egress_id")
