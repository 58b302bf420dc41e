"""Egresses as LiveKit shows them: requests without secrets, results, states (livekit-surface.md 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.domain.egress import (
    Egress,
    EgressStatus,
    Failing,
    FileResult,
    ImagesResult,
    Results,
    SegmentsResult,
    StreamResult,
    StreamStatus,
)
from server.egress.egress_info import egress_info
from tests.unit.egress.egresses import AT, egress_of

FILE = {"fileOutputs": [{"filepath": "a"}]}
S3 = {
    "accessKey": "AKIA", "secret": "sesame", "sessionToken": "session", "assumeRoleExternalId": "external", "bucket": "b",
    "proxy": {"url": "http://me:open@proxy", "username": "me", "password": "open"},
}  # fmt: skip
SECRETS = ("AKIA", "sesame", "session-", "external-", "open", "creds", "acc-name", "acc-key", "the-key")


def composite(body: Mapping[str, Any] | None = None, **more: Any) -> Egress:
    return egress_of(
        "RoomCompositeEgressRequest", {"roomName": "r", **(FILE if body is None else body)}, **more
    )


def shown(egress: Egress) -> Any:
    """What a client of the official package reads."""
    return json_format.ParseDict(egress_info(egress), pb.EgressInfo())


def test_just_started() -> None:
    """LK-05: the internal name of the room is nowhere."""
    info = shown(composite())
    assert (info.egress_id, info.room_id, info.room_name) == ("EG_1", "RM_1", "r")
    assert (info.status, info.started_at, info.updated_at, info.ended_at) == (pb.EGRESS_STARTING, AT, AT, 0)
    assert info.WhichOneof("request") == "room_composite"
    assert info.room_composite.file_outputs[0].filepath == "a"
    assert info.WhichOneof("result") is None
    assert (info.error, info.error_code, info.details) == ("", 0, "")
    assert "livekit-name" not in str(info)


@pytest.mark.parametrize(
    ("kind", "field", "body"),
    [
        ("RoomCompositeEgressRequest", "room_composite", {"roomName": "r", **FILE}),
        ("WebEgressRequest", "web", {"url": "https://h", **FILE}),
        ("ParticipantEgressRequest", "participant", {"roomName": "r", "identity": "i", **FILE}),
        ("TrackCompositeEgressRequest", "track_composite", {"roomName": "r", "audioTrackId": "T", **FILE}),
        ("TrackEgressRequest", "track", {"roomName": "r", "trackId": "T", "file": {}}),
        ("StartEgressRequest", "egress", {"roomName": "r", "template": {}, "outputs": [{"file": {}}]}),
    ],
)
def test_every_request_is_shown_as_it_came(kind: str, field: str, body: Mapping[str, Any]) -> None:
    """LK-07, LK-20, LK-31, LK-37: as itself in its own field."""
    info = shown(egress_of(kind, body))
    assert info.WhichOneof("request") == field
    assert getattr(info, field) == json_format.ParseDict(dict(body), getattr(pb, kind)())


def test_no_secret_of_a_request_is_shown() -> None:
    """2.2: in one output, in several, and where LiveKit itself forgets it.

    LK-64, LK-65, LK-66, LK-96, LK-104, LK-108, LK-111, LK-136.
    """
    image = {"s3": {**S3, "sessionToken": "session-1", "assumeRoleExternalId": "external-1"}}
    body = {
        "roomName": "r",
        "template": {},
        "storage": {"azure": {"accountName": "acc-name", "accountKey": "acc-key", "containerName": "c"}},
        "outputs": [
            {"images": image},
            {"images": {**image, "filenamePrefix": "2"}},
            {"segments": {"gcp": {"credentials": "creds", "bucket": "g"}}},
            {"stream": {"urls": ["rtmp://h/a/the-key"], "destinations": [{"url": "mux://the-key-2"}]}},
            {"file": {}, "storage": {"aliOSS": {"accessKey": "AKIA", "secret": "sesame", "bucket": "o"}}},
        ],
        "webhooks": [{"url": "https://h", "signingKey": "APIname"}],
    }
    info = shown(egress_of("StartEgressRequest", body))
    assert not [one for one in SECRETS if one in str(info)]
    outputs = info.egress.outputs
    assert [one.images.s3.secret for one in outputs[:2]] == ["{secret}", "{secret}"]
    assert outputs[0].images.s3.session_token == "{session_token}"
    assert outputs[0].images.s3.assume_role_external_id == "{external_id}"
    assert outputs[0].images.s3.proxy.url == "http://proxy:80"
    assert outputs[0].images.s3.bucket == "b"
    assert outputs[2].segments.gcp.credentials == "{credentials}"
    assert list(outputs[3].stream.urls) == ["rtmp://h/a/{th...ey}"]
    assert outputs[3].stream.destinations[0].url == "mux://{the...y-2}"
    assert outputs[4].storage.aliOSS.access_key == "{access_key}"
    assert info.egress.storage.azure.account_key == "{account_key}"
    assert info.egress.webhooks[0].signing_key == "APIname"
    quiet = shown(composite({"fileOutputs": [{"s3": {"bucket": "b"}}]}))
    assert quiet.room_composite.file_outputs[0].s3.secret == ""


@pytest.mark.parametrize("kind", ["s3", "gcp"])
@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://me:open@proxy:3128", "http://proxy:3128"),
        ("me:open@proxy:3128", "http://proxy:3128"),
        ("HTTPS://me:o@pen@[::1]/", "https://[::1]:443"),
        ("http://proxy", "http://proxy:80"),
        # Accepted never, but a storage that another one replaces is shown too.
        (" http://me:open@proxy:3128", ""),
        ("ht\ttp://me:open@proxy:3128", ""),
        ("\x01http://me:open@proxy:3128", ""),
        ("socks5://me:open@proxy:1080", ""),
        ("http://me:open@proxy:port", ""),
        ("http:/me:open@proxy", ""),
        ("", ""),
    ],
)
def test_the_login_of_a_proxy_is_not_shown(kind: str, url: str, seen: str) -> None:
    """LK-136: however its address is written, neither in the reply nor in the row, which is not sealed."""
    proxy = {"url": url, "username": "me", "password": "open"}
    segments = {"filenamePrefix": "p", kind: {"bucket": "inner", "proxy": proxy}}
    egress = egress_of(
        "StartEgressRequest", {"roomName": "r", "template": {}, "outputs": [{"segments": segments}]}
    )
    assert getattr(shown(egress).egress.outputs[0].segments, kind).proxy.url == seen
    for text in (str(egress.request), str(egress_info(egress)), repr(egress)):
        assert "open" not in text
        assert "o@pen" not in text


def test_addresses_that_were_never_read_show_nothing_secret() -> None:
    """Trap 4, trap 15: outputs and storages that do not count are shown, whatever is in them."""
    replaced = {
        "protocol": "RTMP",
        "urls": [" rtmp://h/a/the-key", "rtmp://me:the-key/2@h/a/k", "http://me:the-key@h/a/the-key", "the-key", "srt://h?a"],
    }  # fmt: skip
    info = shown(composite({"stream": replaced, "streamOutputs": [{"urls": ["rtmp://h/a/good-key"]}]}))
    assert list(info.room_composite.stream.urls) == [
        "{...}",
        "rtmp://{...}",
        "http://{...}",
        "{...}",
        "srt://h{...}",
    ]
    inner = {"filenamePrefix": "p", "s3": {"bucket": "b", "endpoint": "https://me:the-key@minio.example"}}
    body = {"roomName": "r", "template": {}, "outputs": [{"segments": inner}]}
    info = shown(egress_of("StartEgressRequest", body))
    assert info.egress.outputs[0].segments.s3.endpoint == ""
    info = shown(composite({"fileOutputs": [{"s3": {"bucket": "b", "endpoint": "minio.example:9000/s3"}}]}))
    assert info.room_composite.file_outputs[0].s3.endpoint == "minio.example:9000/s3"


def test_a_websocket_is_shown_without_its_query() -> None:
    body = {"roomName": "r", "trackId": "T", "websocketUrl": "wss://h/in?token=the-key"}
    assert shown(egress_of("TrackEgressRequest", body)).track.websocket_url == "wss://h/in?token={...}"


def test_the_layout_is_that_of_now() -> None:
    """LK-50; a request that named none keeps showing none until it is changed."""
    assert shown(composite()).room_composite.layout == ""
    assert shown(composite(layout="speaker-light")).room_composite.layout == "speaker-light"
    body = {"roomName": "r", "template": {"layout": "grid", "audioOnly": True}, "outputs": [{"file": {}}]}
    template = shown(egress_of("StartEgressRequest", body, layout="speaker")).egress.template
    assert (template.layout, template.audio_only) == ("speaker", True)


def test_a_finished_file() -> None:
    """2.2, trap 5: the same in `file_results` and, for older clients, in `result`."""
    file = FileResult("a.mp4", AT + 1, AT + 5, 4, 1000, "https://s/a.mp4")
    info = shown(
        composite(
            status=EgressStatus.COMPLETE,
            ended_at=AT + 9,
            details="End reason: StopEgress API",
            results=Results(files=(file,), manifest_location="https://s/m", backup_storage_used=True),
        )
    )
    assert (info.status, info.ended_at) == (pb.EGRESS_COMPLETE, AT + 9)
    found = info.file_results[0]
    assert (found.filename, found.started_at, found.ended_at, found.duration, found.size, found.location) == (
        "a.mp4", AT + 1, AT + 5, 4, 1000, "https://s/a.mp4",
    )  # fmt: skip
    assert info.file == found
    assert (info.manifest_location, info.backup_storage_used) == ("https://s/m", True)
    assert info.details == "End reason: StopEgress API"


def test_streams_segments_and_images() -> None:
    streams = (
        StreamResult("a", "rtmp://h/a/{k...y}", "rtmp://h/a/***", started_at=AT, ended_at=AT + 7,
                     status=StreamStatus.FINISHED),
        StreamResult("b", "rtmp://h/b/{k...y}", "rtmp://h/b/***", StreamStatus.FAILED, error="refused", retries=3,
                     last_retry_at=AT + 2),
    )  # fmt: skip
    only = composite({"streamOutputs": [{"urls": ["rtmp://h/a/key"]}]}, results=Results(streams=streams))
    info = shown(only)
    assert [one.status for one in info.stream_results] == [pb.StreamInfo.FINISHED, pb.StreamInfo.FAILED]
    assert (info.stream_results[0].duration, info.stream_results[0].id) == (7, "a")
    assert (info.stream_results[1].error, info.stream_results[1].retries) == ("refused", 3)
    assert list(info.stream.info) == list(info.stream_results)
    segments = SegmentsResult("p/l.m3u8", "", "https://s/p/l.m3u8", "", 9, 10, 2, AT, AT + 9)
    body = {"segmentOutputs": [{"filenamePrefix": "p"}]}
    info = shown(composite(body, results=Results(segments=(segments,))))
    assert (info.segments.playlist_name, info.segments.segment_count, info.segments.size) == (
        "p/l.m3u8",
        2,
        10,
    )
    several = composite({**body, "imageOutputs": [{}]})
    info = shown(
        replace(several, results=Results(segments=(segments,), images=(ImagesResult("i", 3, AT, AT),)))
    )
    assert info.image_results[0].image_count == 3
    assert info.WhichOneof("result") is None


@pytest.mark.parametrize(
    ("status", "failing", "code"),
    [
        (
            EgressStatus.ABORTED,
            Failing("EGRESS_ABORTED", "Stop called before pipeline could start", 412),
            412,
        ),
        (EgressStatus.LIMIT_REACHED, Failing("LIMIT_REACHED", "Session limit reached", 413), 413),
        (EgressStatus.FAILED, Failing("EGRESS_FAILED", "it broke"), 0),
    ],
)
def test_what_went_wrong(status: EgressStatus, failing: Failing, code: int) -> None:
    """2.1, trap 9: `error_code` may well be 0."""
    info = shown(composite(status=status, failing=failing))
    assert (info.error, info.error_code) == (failing.message, code)
    assert pb.EgressStatus.Name(info.status) == status.value


@pytest.mark.parametrize(
    ("body", "by_sdk"),
    [
        ({}, False),
        ({"audioOnly": True}, True),
        ({"audioOnly": True, "layout": "speaker"}, False),
        ({"audioOnly": True, "customBaseUrl": "https://h"}, False),
    ],
)
def test_source_types(body: Mapping[str, Any], by_sdk: bool) -> None:
    """2.1: what LiveKit would have needed a browser for."""
    info = shown(composite({**body, **FILE}))
    assert info.source_type == (pb.EGRESS_SOURCE_TYPE_SDK if by_sdk else pb.EGRESS_SOURCE_TYPE_WEB)
