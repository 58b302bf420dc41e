"""LiveKit's Start requests become plans (livekit-surface.md 1.5, 3, 4; LK)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from livekit.protocol import egress as pb

from server.domain.egress import AudioEncoding, EgressPlan, EgressSecrets, StorageChoice, VideoEncoding
from server.domain.egress_sources import (
    AudioRoute,
    MediaSource,
    ParticipantSource,
    RoomSource,
    TrackCompositeSource,
    TrackSource,
    WebSource,
)
from server.domain.json_form import from_json, to_json
from tests.unit.egress.requesting import (
    COMPOSITE,
    FILE,
    IMAGES,
    ROLE,
    RTMP,
    SEGMENTS,
    composite,
    field_of,
    read,
)

# --- sources


def test_room_composite() -> None:
    """LK-08, LK-09, LK-11, LK-12: the project's name beside LiveKit's; the grid where no layout is given."""
    found = composite(layout="speaker-dark", videoOnly=True, **FILE)
    assert found.room_name == "r"
    assert found.plan.livekit_room == "livekit-room"
    assert found.plan.source == RoomSource(layout="speaker-dark", video_only=True)
    assert (found.layout, found.orders.layout) == ("speaker-dark", "speaker-dark")
    assert found.plan.encoding.audio is None
    assert composite(**FILE).layout == "grid"
    templated = composite(customBaseUrl="https://example.com/t", **FILE).plan.source
    assert templated == RoomSource(base_url="https://example.com/t")


def test_audio_mixing_counts_for_plain_sound_only() -> None:
    """LiveKit's rule (5.4): sound alone, no layout, no template."""
    mixing = {"audioMixing": "DUAL_CHANNEL_AGENT"}
    plain = composite(audioOnly=True, **mixing, **FILE).plan.source
    assert plain == RoomSource(audio_only=True, audio_mixing="dual_channel_agent")
    for more in ({"layout": "grid"}, {"customBaseUrl": "https://h"}):
        source = composite(audioOnly=True, **mixing, **more, **FILE).plan.source
        assert isinstance(source, RoomSource)
        assert source.audio_mixing == "default"


def test_other_sources() -> None:
    """LK-23, LK-37, LK-38, and the two methods that the seed leaves out."""
    who = read("ParticipantEgressRequest", {"roomName": "r", "identity": "ann", "screenShare": True, **FILE})
    assert who.plan.source == ParticipantSource("ann", True)
    assert who.layout == ""
    tracks = read("TrackCompositeEgressRequest", {"roomName": "r", "videoTrackId": "TR_v", **FILE})
    assert tracks.plan.source == TrackCompositeSource("", "TR_v")
    assert tracks.plan.encoding.audio is None
    page = read("WebEgressRequest", {"url": "https://h/p?a=b", "awaitStartSignal": True, **FILE}, room="")
    assert page.plan.source == WebSource("https://h/p?a=b", await_start_signal=True)
    assert (page.room_name, page.plan.livekit_room) == ("", "")


def test_track_egress_takes_the_track_as_it_came() -> None:
    """LK-31, LK-33, LK-34, LK-35: a file whose kind the track decides, or its sound over a websocket."""
    file = read("TrackEgressRequest", {"roomName": "r", "trackId": "TR_1", "file": {"disableManifest": True}})
    assert file.plan.source == TrackSource("TR_1")
    assert (file.plan.encoding.video, file.plan.encoding.audio) == (None, None)
    assert [(one.container, one.path, one.manifest) for one in file.plan.outputs.files] == [("", "", False)]
    socket = read("TrackEgressRequest", {"roomName": "r", "trackId": "TR_1", "websocketUrl": "wss://h/in"})
    assert socket.plan.outputs.streams == "websocket"
    assert [one.url for one in socket.orders.destinations] == ["wss://h/in"]
    assert socket.plan.encoding.audio == AudioEncoding("pcm", 0, 48000)
    assert socket.type == "stream"


def test_media_sources() -> None:
    """`StartEgress`: one picture, any sound; with all of it captured no route counts (1.5)."""
    body = {
        "roomName": "r",
        "media": {
            "participantVideo": {"identity": "ann", "preferScreenShare": True},
            "audio": {
                "routes": [
                    {"trackId": "TR_a", "channel": "AUDIO_CHANNEL_LEFT"},
                    {"participantIdentity": "bob"},
                    {"participantKind": "AGENT", "channel": "AUDIO_CHANNEL_RIGHT"},
                ]
            },
        },
        "outputs": [{"file": {}}],
    }
    assert read("StartEgressRequest", body).plan.source == MediaSource(
        video_identity="ann",
        screen_share=True,
        routes=(
            AudioRoute(track_id="TR_a", channel="left"),
            AudioRoute(participant_identity="bob"),
            AudioRoute(participant_kind="agent", channel="right"),
        ),
    )
    body["media"] = {"audio": {"captureAll": True, "routes": [{"trackId": "TR_a"}]}}
    found = read("StartEgressRequest", body)
    assert found.plan.source == MediaSource(capture_all_audio=True)
    assert found.plan.outputs.files[0].container == "ogg"


def test_passthrough_is_a_track_as_it_came() -> None:
    body = {
        "roomName": "r",
        "preset": "PASSTHROUGH",
        "media": {"videoTrackId": "TR_v"},
        "outputs": [{"file": {"filepath": "p/"}}],
    }
    assert read("StartEgressRequest", body).plan.source == TrackSource("TR_v")
    body["media"] = {"audio": {"routes": [{"trackId": "TR_a"}]}}
    assert read("StartEgressRequest", body).plan.source == TrackSource("TR_a")


# --- outputs


def test_lists_win_over_the_fields_that_they_replaced() -> None:
    """LK-04, trap 4: Node sends both with the same content; that is one output."""
    both = composite(file={"filepath": "old"}, fileOutputs=[{"filepath": "new"}])
    assert [one.path for one in both.plan.outputs.files] == ["new"]
    old = composite(segments={"filenamePrefix": "p"})
    assert [one.prefix for one in old.plan.outputs.segments] == ["p"]
    stream = composite(stream={"urls": ["rtmp://h/a/k"]}, streamOutputs=[])
    assert stream.plan.outputs.streams == "rtmp"


def test_kinds_of_egress() -> None:
    """B-41: one encode for a file and its streams."""
    assert composite(**FILE).type == "record"
    assert composite(**RTMP).type == "stream"
    both = composite(**FILE, **RTMP)
    assert (both.type, both.file_type, both.quality) == ("both", "MP4", "720p")
    assert [one.url for one in both.orders.destinations] == ["rtmp://h/app/key-1", "rtmp://i/app/key-2"]
    assert len({one.id for one in both.orders.destinations}) == 2
    assert composite(**SEGMENTS, **IMAGES).type == "record"


def test_files() -> None:
    """LK-61, LK-62."""
    file = composite(fileOutputs=[{"fileType": "MP4", "filepath": "{room_name}", "disableManifest": True}])
    only = file.plan.outputs.files[0]
    assert (only.container, only.path, only.manifest) == ("mp4", "{room_name}", False)


def test_segments_and_images() -> None:
    """LK-73, LK-74, LK-75, LK-76, LK-84, LK-85, LK-86, LK-87, LK-88, LK-89: LiveKit's defaults of 4 s and 10 s."""
    segments = {
        "filenamePrefix": "p", "playlistName": "l", "livePlaylistName": "now", "filenameSuffix": "TIMESTAMP",
    }  # fmt: skip
    images = {
        "width": 320, "height": 180, "filenamePrefix": "i", "filenameSuffix": "IMAGE_SUFFIX_NONE_OVERWRITE",
        "imageCodec": "IC_JPEG",
    }  # fmt: skip
    found = composite(segmentOutputs=[segments], imageOutputs=[images]).plan.outputs
    one, image = found.segments[0], found.images[0]
    assert (one.prefix, one.playlist, one.live_playlist) == ("p", "l", "now")
    assert (one.segment_sec, one.suffix, one.manifest) == (4, "timestamp", True)
    assert (image.interval_sec, image.width, image.height, image.suffix) == (10, 320, 180, "none")


def test_images_alone_need_no_sound() -> None:
    found = composite(**IMAGES)
    assert found.plan.encoding.audio is None
    assert found.plan.encoding.video is not None


def test_streams() -> None:
    """LK-82, LK-83: by protocol or by address; each address once; ids of the caller's stay."""
    assert composite(streamOutputs=[{"urls": ["srt://h:9000?streamid=x"]}]).plan.outputs.streams == "srt"
    destinations = [{"id": "yt", "url": "rtmp://h/a/k"}, {"id": "tw", "url": "twitch://k"}]
    found = composite(streamOutputs=[{"destinations": destinations, "urls": ["rtmp://h/a/k"]}])
    assert [one.id for one in found.orders.destinations] == ["yt", "tw"]
    waiting = composite(streamOutputs=[{"protocol": "RTMP"}], **FILE)
    assert (waiting.type, waiting.orders.destinations) == ("both", ())


def test_websockets_are_for_start_egress() -> None:
    """Sound only, one address (1.5); the older requests know RTMP and SRT (LK-82)."""
    output = {"protocol": "WEBSOCKET", "urls": ["ws://h/a", "ws://h/b"]}
    body = {"roomName": "r", "template": {}, "outputs": [{"stream": output}]}
    found = read("StartEgressRequest", body)
    assert found.plan.encoding.video is None
    assert [one.url for one in found.orders.destinations] == ["ws://h/a"]
    assert field_of(COMPOSITE, {"roomName": "r", "streamOutputs": [output]}) == "stream protocol"


# --- storage


def test_storage_of_an_output() -> None:
    """LiveKit's own names, and what belongs together only once.

    LK-63, LK-65, LK-66, LK-78, LK-92, LK-95, LK-100, LK-136.
    """
    s3 = {
        "accessKey": "AK", "secret": "SK", "bucket": "b", "region": "r", "endpoint": "https://e", "forcePathStyle": True,
        "metadata": {"a": "b"}, "tagging": "x=y", "proxy": {"url": "http://p", "username": "u", "password": "w"},
    }  # fmt: skip
    found = composite(
        fileOutputs=[{"s3": s3}],
        segmentOutputs=[{"s3": s3}],
        imageOutputs=[{"gcp": {"credentials": "{}", "bucket": "g"}}],
    )
    assert [one.backend for one in found.secrets.storages] == ["s3", "gcp"]
    config = found.secrets.storages[0].config
    assert config["access_key"] == "AK"
    assert config["force_path_style"] is True
    assert config["proxy"]["password"] == "w"
    outputs = found.plan.outputs
    assert (outputs.files[0].storage, outputs.segments[0].storage, outputs.images[0].storage) == (0, 0, 1)
    azure = {"accountName": "a", "accountKey": "k", "containerName": "c"}
    alioss = {"accessKey": "a", "secret": "s", "bucket": "b", "endpoint": "oss"}
    assert composite(fileOutputs=[{"azure": azure}]).secrets.storages[0].backend == "azure"
    assert composite(fileOutputs=[{"aliOSS": alioss}]).secrets.storages[0].backend == "alioss"
    assert composite(**FILE).secrets.storages == (StorageChoice(),)
    assert composite(**RTMP).secrets.storages == ()


def test_a_role_for_a_bucket() -> None:
    """livekit-surface.md 3.5: with the caller's own keys; a login may stand in the proxy's address."""
    own = {
        "accessKey": "AK",
        "secret": "SK",
        "bucket": "b",
        "assumeRoleArn": ROLE,
        "assumeRoleExternalId": "team-7",
    }
    (found,) = composite(
        fileOutputs=[{"s3": {**own, "proxy": {"url": "http://me:open@proxy:3128/"}}}]
    ).secrets.storages
    assert (found.config["assume_role_arn"], found.config["assume_role_external_id"]) == (ROLE, "team-7")
    assert "open" not in repr(found)


def test_a_proxy_with_a_certificate_is_for_s3() -> None:
    """LK-134: for GCP nothing could keep its name from leading into our network later."""
    storage = {"bucket": "b", "proxy": {"url": "https://proxy:3128"}}
    assert composite(fileOutputs=[{"s3": storage}]).secrets.storages[0].backend == "s3"
    body = {"roomName": "r", "fileOutputs": [{"gcp": storage}]}
    assert field_of(COMPOSITE, body) == "proxy url (must start with http:// for gcp)"


def test_storage_of_start_egress() -> None:
    """Of the output, else of the request; what stands inside segments does not count (trap 15)."""
    body = {
        "roomName": "r",
        "template": {},
        "storage": {"s3": {"bucket": "all"}},
        "outputs": [
            {"file": {}, "storage": {"s3": {"bucket": "own"}}},
            {"segments": {"filenamePrefix": "p", "s3": {"bucket": "inner"}}},
            {"images": {}},
            {"images": {"filenamePrefix": "more"}},
        ],
    }
    found = read("StartEgressRequest", body)
    assert [one.config["bucket"] for one in found.secrets.storages] == ["own", "all"]
    assert found.plan.outputs.segments[0].storage == 1
    assert len(found.plan.outputs.images) == 2


def test_secrets_are_in_no_plan_and_no_repr() -> None:
    found = composite(fileOutputs=[{"s3": {"bucket": "b", "secret": "top-secret"}}], **RTMP)
    assert "top-secret" not in repr(found)
    assert "key-1" not in repr(found)
    assert "key-1" not in str(to_json(found.plan))


def test_plans_survive_the_database() -> None:
    found = composite(**FILE, **RTMP, **SEGMENTS, **IMAGES)
    plan: EgressPlan = from_json(EgressPlan, to_json(found.plan))
    secrets: EgressSecrets = from_json(EgressSecrets, to_json(found.secrets))
    assert (plan, secrets) == (found.plan, found.secrets)


# --- encodings


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("H264_720P_30", (1280, 720, 30, 3000)),
        ("H264_720P_60", (1280, 720, 60, 4500)),
        ("H264_1080P_30", (1920, 1080, 30, 4500)),
        ("H264_1080P_60", (1920, 1080, 60, 6000)),
        ("PORTRAIT_H264_720P_30", (720, 1280, 30, 3000)),
        ("PORTRAIT_H264_720P_60", (720, 1280, 60, 4500)),
        ("PORTRAIT_H264_1080P_30", (1080, 1920, 30, 4500)),
        ("PORTRAIT_H264_1080P_60", (1080, 1920, 60, 6000)),
    ],
)
def test_presets(preset: str, expected: tuple[int, int, int, int]) -> None:
    """LK-125, LK-126, LK-127, LK-128, LK-129, LK-130, LK-131, LK-132, B-38: LiveKit's own table, by name and by number."""
    for given in (preset, pb.EncodingOptionsPreset.Value(preset)):
        video = composite(preset=given, **FILE).plan.encoding.video
        assert video is not None
        assert (video.width, video.height, video.fps, video.kbps) == expected
        assert video.codec == "h264_main"


def test_advanced_options_and_their_defaults() -> None:
    """LK-115, LK-116, LK-117, LK-118, LK-119, LK-120, LK-121, LK-122, LK-123, LK-124, B-40."""
    found = composite(advanced={}, **FILE).plan.encoding
    assert found.video == VideoEncoding("h264_main", 1280, 720, 30, 4500, 4.0)
    assert found.audio == AudioEncoding("aac", 128, 44100)
    options = {
        "width": 640, "height": 360, "depth": 24, "framerate": 25, "audioCodec": "OPUS", "audioBitrate": 96,
        "audioFrequency": 32000, "videoCodec": "H264_HIGH", "videoBitrate": 900, "keyFrameInterval": 2.5,
    }  # fmt: skip
    found = composite(advanced=options, **FILE).plan.encoding
    assert found.video == VideoEncoding("h264_high", 640, 360, 25, 900, 2.5)
    assert found.audio == AudioEncoding("opus", 96, 48000)
    ignored = composite(advanced={"videoCodec": "VP8"}, **FILE).plan.encoding.video
    assert ignored is not None
    assert ignored.codec == "h264_main"


@pytest.mark.parametrize(
    ("body", "container", "codec"),
    [
        ({"fileOutputs": [{}]}, "ogg", "opus"),
        ({"fileOutputs": [{}], "advanced": {"audioCodec": "AAC"}}, "mp4", "aac"),
        ({"fileOutputs": [{}], "advanced": {"audioCodec": "AC_MP3"}}, "mp3", "mp3"),
        ({"fileOutputs": [{"fileType": "MP3"}]}, "mp3", "mp3"),
        ({"fileOutputs": [{"fileType": "MP4"}], "advanced": {"audioCodec": "OPUS"}}, "mp4", "opus"),
        ({"fileOutputs": [{}], **RTMP}, "mp4", "aac"),
        ({"fileOutputs": [{"fileType": "MP4"}], "advanced": {"audioCodec": "OPUS"}, **RTMP}, "mp4", "aac"),
    ],
)
def test_sound_alone_finds_its_container(body: Mapping[str, Any], container: str, codec: str) -> None:
    """The first of OGG, MP4, MP3 that all outputs can live with (3.2, 4.2); streams take AAC, come what may."""
    found = composite(audioOnly=True, **body)
    assert found.plan.outputs.files[0].container == container
    assert found.plan.encoding.audio is not None
    assert found.plan.encoding.audio.codec == codec
    assert found.plan.encoding.video is None


def test_key_frames() -> None:
    """4 s for streams; segments set their own, and a stream's explicit interval shortens them (4.1)."""

    def of(**body: Any) -> tuple[float, int]:
        plan = composite(**body).plan
        assert plan.encoding.video is not None
        length = plan.outputs.segments[0].segment_sec if plan.outputs.segments else 0
        return plan.encoding.video.key_frame_sec, length

    assert of(**RTMP) == (4.0, 0)
    assert of(**FILE) == (0.0, 0)
    assert of(**SEGMENTS, advanced={"keyFrameInterval": 2}) == (0.0, 4)
    assert of(**SEGMENTS, **RTMP, advanced={"keyFrameInterval": 2}) == (0.0, 2)
    assert of(segmentOutputs=[{"segmentDuration": 6}], **RTMP) == (0.0, 6)


# --- webhooks


def test_webhooks_of_a_request() -> None:
    """LK-137, LK-138."""
    filters = {"includeEvents": ["egress_ended"], "excludeEvents": ["egress_updated"]}
    webhook = {"url": "https://h/hook", "signingKey": "APIx", "filterParams": filters}
    found = composite(webhooks=[webhook], **FILE).secrets.webhooks
    assert [(one.url, one.signing_key, one.include, one.exclude) for one in found] == [
        ("https://h/hook", "APIx", ("egress_ended",), ("egress_updated",))
    ]
    assert (
        field_of(COMPOSITE, {"roomName": "r", "webhooks": [{"signingKey": "APIx"}], **FILE}) == "webhook url"
    )
