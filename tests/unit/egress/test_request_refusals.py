"""LiveKit's Start requests that cannot be are refused in LiveKit's words (livekit-surface.md 1.5; LK)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.egress.requests import Capabilities, RequestReader, UrlChecks
from server.errors import Code, ServiceError
from tests.unit.egress.requesting import (
    COMPOSITE,
    FILE,
    IMAGES,
    ROLE,
    RTMP,
    SEGMENTS,
    field_of,
    read,
    refusal,
)


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (COMPOSITE, {"audioOnly": True, "videoOnly": True, **FILE}, "audio_only and video_only"),
        (COMPOSITE, {"customBaseUrl": "ftp://h", **FILE}, "template base url"),
        (COMPOSITE, {}, "output"),
        (COMPOSITE, {"fileOutputs": [{}, {}]}, "multiple file outputs"),
        (COMPOSITE, {"streamOutputs": [*RTMP["streamOutputs"]] * 2}, "multiple stream outputs"),
        (COMPOSITE, {"segmentOutputs": [{}, {}]}, "multiple segmented file outputs"),
        (COMPOSITE, {"imageOutputs": [{}, {}]}, "multiple image outputs"),
        (COMPOSITE, {"streamOutputs": [{}]}, "stream protocol"),
        (COMPOSITE, {"streamOutputs": [{"protocol": "RTMP"}]}, "stream url"),
        (COMPOSITE, {"audioOnly": True, **IMAGES}, "audio_only images"),
        (COMPOSITE, {"advanced": {"width": 8}, **FILE}, "width"),
        (COMPOSITE, {"advanced": {"height": 361}, **FILE}, "height"),
        (COMPOSITE, {"advanced": {"width": -1280}, **FILE}, "width"),
        (COMPOSITE, {"advanced": {"depth": 32}, **FILE}, "depth"),
        (COMPOSITE, {"advanced": {"framerate": 1000}, **FILE}, "framerate"),
        (COMPOSITE, {"advanced": {"videoBitrate": -1}, **FILE}, "video_bitrate"),
        (COMPOSITE, {"advanced": {"audioFrequency": 7}, **FILE}, "audio_frequency"),
        (COMPOSITE, {"preset": "PASSTHROUGH", **FILE}, "preset"),
        (COMPOSITE, {"preset": 77, **FILE}, "preset"),
        (COMPOSITE, {"imageOutputs": [{"width": 17}]}, "width"),
        (COMPOSITE, {"imageOutputs": [{"filenameSuffix": 9}]}, "filename_suffix"),
        (COMPOSITE, {"fileOutputs": [{"s3": {}}]}, "bucket"),
        (COMPOSITE, {"fileOutputs": [{"azure": {"accountName": "a"}}]}, "container_name"),
        *(
            (COMPOSITE, {"fileOutputs": [{kind: {"bucket": "b", "endpoint": endpoint}}]}, "endpoint")
            for kind in ("s3", "aliOSS")
            for endpoint in (
                "https://me:open@minio.example", "me:open@minio.example", "https://minio.example?key=open", " https://minio",
                "ht\ttps://me:open@minio", "ftp://minio", "https://",
            )
        ),
        *(
            (COMPOSITE, {"fileOutputs": [{kind: {"bucket": "b", "proxy": proxy}}]}, field)
            for kind in ("s3", "gcp")
            for proxy, field in (
                ({"url": "socks5://proxy:1080"}, "proxy url"),
                ({"url": "http://proxy:port"}, "proxy url"),
                ({"url": "http://proxy/path"}, "proxy url"),
                ({"url": "http://pro xy"}, "proxy url"),
                ({"url": " http://me:open@proxy:3128"}, "proxy url"),
                ({"url": "ht\ttp://me:open@proxy:3128"}, "proxy url"),
                ({"url": "http://me:op\nen@proxy:3128"}, "proxy url"),
                ({"username": "me", "password": "open"}, "proxy url"),
                ({"url": "http://proxy", "password": "open"}, "proxy username"),
            )
        ),
        *(
            (COMPOSITE, {"segmentOutputs": [{"filenamePrefix": "s", "s3": {"bucket": "b", **role}}]}, field)
            for role, field in (
                ({"assumeRoleExternalId": "x1"}, "assume_role_arn"),
                ({"assumeRoleArn": "uploads"}, "assume_role_arn"),
                ({"assumeRoleArn": ROLE, "secret": "s"}, "access_key"),
                ({"assumeRoleArn": ROLE, "accessKey": "a"}, "secret"),
                ({"assumeRoleArn": ROLE, "accessKey": "a", "secret": "s", "assumeRoleExternalId": "x\n"},
                 "assume_role_external_id"),
            )
        ),
        (COMPOSITE, {"fileOutputs": [{"filepath": "a" * 2000}]}, "filepath"),
        (COMPOSITE, {"segmentOutputs": [{"protocol": "HLS_FMP4_PROTOCOL"}]}, "segmented file protocol"),
        (
            COMPOSITE,
            {"segmentOutputs": [{"playlistName": "a/b", "livePlaylistName": "c/d"}]},
            "live_playlist_name must be in same directory as playlist_name",
        ),
        (
            COMPOSITE,
            {"segmentOutputs": [{"playlistName": "a/b", "livePlaylistName": "b.m3u8"}]},
            "live_playlist_name cannot be identical to playlist_name",
        ),
        ("WebEgressRequest", {**FILE}, "web url"),
        ("WebEgressRequest", {"url": "file:///etc/passwd", **FILE}, "web url"),
        ("WebEgressRequest", {"url": "https://h", "audioOnly": True, "videoOnly": True, **FILE},
         "audio_only and video_only"),
        ("ParticipantEgressRequest", {**FILE}, "identity"),
        ("TrackCompositeEgressRequest", {**FILE}, "audio_track_id or video_track_id"),
        ("TrackEgressRequest", {"file": {}}, "track_id"),
        ("TrackEgressRequest", {"trackId": "TR_1"}, "output"),
        ("StartEgressRequest", {"outputs": [{"file": {}}]}, "source"),
        ("StartEgressRequest", {"template": {}}, "output"),
        ("StartEgressRequest", {"template": {}, "outputs": [{}]}, "output config"),
        ("StartEgressRequest", {"template": {}, "outputs": [{"file": {}}] * 2}, "multiple file outputs"),
        ("StartEgressRequest", {"template": {}, "outputs": [{"segments": {}}] * 2},
         "multiple segmented file outputs"),
        ("StartEgressRequest", {"media": {}, "outputs": [{"file": {}}]}, "audio or video"),
        ("StartEgressRequest", {"template": {}, "preset": "PASSTHROUGH", "outputs": [{"file": {}}]}, "preset"),
    ],
)  # fmt: skip
def test_refusals_in_livekits_words(kind: str, body: Mapping[str, Any], field: str) -> None:
    """The table of 1.5; LK-13, LK-14, LK-15, LK-16, LK-22, LK-33, LK-34, LK-38, LK-83, B-41."""
    room = {} if kind == "WebEgressRequest" else {"roomName": "r"}
    assert field_of(kind, {**room, **body}) == field


@pytest.mark.parametrize(
    ("media", "outputs", "field"),
    [
        ({"participantVideo": {"identity": "a"}}, [{"file": {}}], "passthrough participant_video"),
        ({"audio": {"captureAll": True}}, [{"file": {}}], "passthrough capture_all"),
        (
            {"audio": {"routes": [{"trackId": "a"}, {"trackId": "b"}]}},
            [{"file": {}}],
            "passthrough audio routes",
        ),
        (
            {"audio": {"routes": [{"participantIdentity": "a"}]}},
            [{"file": {}}],
            "passthrough audio route match",
        ),
        (
            {"videoTrackId": "v", "audio": {"routes": [{"trackId": "a"}]}},
            [{"file": {}}],
            "passthrough source",
        ),
        ({"videoTrackId": "v"}, [], "passthrough outputs"),
        ({"videoTrackId": "v"}, [{"file": {}}, {"images": {}}], "passthrough outputs"),
        ({"videoTrackId": "v"}, [{"segments": {}}], "passthrough output"),
        ({"videoTrackId": "v"}, [{"file": {"fileType": "MP4"}}], "passthrough file_type"),
    ],
)
def test_what_passes_through(media: Mapping[str, Any], outputs: list[Any], field: str) -> None:
    body = {"roomName": "r", "preset": "PASSTHROUGH", "media": media, "outputs": outputs}
    assert field_of("StartEgressRequest", body) == field


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {"fileOutputs": [{"fileType": "OGG"}], **RTMP, "audioOnly": True},
            "no supported codec is compatible",
        ),
        ({"fileOutputs": [{"fileType": "OGG"}]}, "format ogg incompatible with codec video/h264"),
        ({"fileOutputs": [{"fileType": "MP3"}]}, "format mp3 incompatible with codec video/h264"),
        (
            {**SEGMENTS, "advanced": {"audioCodec": "OPUS"}},
            "format segments incompatible with codec audio/opus",
        ),
        ({**FILE, "advanced": {"audioCodec": "AC_MP3"}}, "format mp4 incompatible with codec audio/mpeg"),
    ],
)
def test_outputs_that_no_encoding_fits(body: Mapping[str, Any], says: str) -> None:
    """4.2."""
    error = refusal(COMPOSITE, {"roomName": "r", **body})
    assert error.code is Code.INVALID_ARGUMENT
    assert says in error.message


def test_addresses_are_refused_without_their_keys() -> None:
    """Trap 12."""
    for url in ("http://h/app/secret-key", "rtmp://h/secret-key", "secret-key"):
        error = refusal(COMPOSITE, {"roomName": "r", "streamOutputs": [{"protocol": "RTMP", "urls": [url]}]})
        assert error.message.startswith("invalid url ")
        assert "secret-key" not in error.message
    error = refusal(
        "TrackEgressRequest", {"roomName": "r", "trackId": "T", "websocketUrl": "http://h/secret"}
    )
    assert "invalid scheme" in error.message or "invalid protocol" in error.message
    assert "secret" not in error.message


def test_the_address_guard_has_its_say() -> None:
    def refuse(url: str) -> None:
        raise ServiceError(
            Code.INVALID_ARGUMENT, "stream url: must not point to a private or reserved address"
        )

    request = json_format.ParseDict({"roomName": "r", **RTMP}, pb.RoomCompositeEgressRequest())
    with pytest.raises(ServiceError, match="private"):
        RequestReader(Capabilities(), UrlChecks(refuse, refuse, refuse)).read(request, "r")


def test_without_a_browser_pages_are_refused() -> None:
    """What is missing is named; everything else goes on without it."""
    capabilities = Capabilities(browser="this server lacks chromium")
    for kind, body in (
        ("WebEgressRequest", {"url": "https://h", **FILE}),
        (COMPOSITE, {"roomName": "r", "customBaseUrl": "https://h", **FILE}),
        ("StartEgressRequest", {"web": {"url": "https://h"}, "outputs": [{"file": {}}]}),
    ):
        error = refusal(kind, body, capabilities=capabilities)
        assert error.code is Code.FAILED_PRECONDITION
        assert "lacks chromium" in error.message
    assert read(COMPOSITE, {"roomName": "r", **FILE}, capabilities=capabilities).type == "record"
