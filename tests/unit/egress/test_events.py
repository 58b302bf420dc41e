"""Which events tell of which change of an egress, and what they say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from server.domain.egress import (
    Egress,
    EgressStatus,
    Failing,
    FileResult,
    Results,
    StreamResult,
    StreamStatus,
)
from server.domain.webhook import NewEvent
from server.egress.events import cautioned_event, changed_events, started_events, streams_failed
from server.egress.handler import closing
from server.egress.outcome import (
    DISK_FILLS,
    LIMIT,
    LIMIT_REACHED,
    STOPPED,
    aborted,
    completed,
    concluded,
    failed,
    limited,
    recording_after,
)
from tests.unit.egress.capturing import BEGAN, NOW, SECOND, egress_of, recording_of, stream_of

FILE = FileResult(
    "recordings/rec_1.mp4",
    started_at=BEGAN,
    ended_at=BEGAN + 3600 * SECOND,
    duration=3_599_500_000_000,
    size=104_857_600,
    location="https://storage.baxcloud.io/recordings/rec_1.mp4",
)
DONE = Results(files=(FILE,))
REFUSED = Failing("RTMP_CONNECTION_REFUSED", "RTMP connection refused by destination", 503)
BOTH_STREAMING = Results(streams=(stream_of("one"), stream_of("two")))


def names(events: Sequence[NewEvent]) -> list[str]:
    return [event.name for event in events]


def data(events: Sequence[NewEvent], name: str) -> dict[str, Any]:
    (event,) = [event for event in events if event.name == name]
    body = json.loads(event.body)
    found: dict[str, Any] = body.get("data", body)
    return found


def with_streams(egress: Egress, *streams: StreamResult) -> Egress:
    return replace(egress, results=replace(egress.results, streams=streams))


def test_a_recordings_start() -> None:
    """WH-21, WH-22, WH-23, WH-24, WH-25, WH-26, WH-27, WH-28, WH-29, WH-30: the seed's envelope and keys, exactly."""
    events = started_events(egress_of(), NOW)
    assert names(events) == ["recording.started", "recording_started"]
    body = json.loads(events[0].body)
    assert {key: body[key] for key in ("event", "timestamp", "data")} == {
        "event": "recording.started",
        "timestamp": "2027-01-15T08:00:30Z",
        "data": {
            "recordingId": "rec_1",
            "egressId": "EG_1",
            "roomName": "my-live-room",
            "type": "record",
            "quality": "720p",
            "layout": "speaker",
        },
    }
    assert events[0].subject == "EG_1"


def test_a_streams_start() -> None:
    """WH-31, WH-32, WH-33, WH-34, WH-35, WH-36."""
    egress = egress_of(type="stream", recording_id=None, results=BOTH_STREAMING)
    events = started_events(egress, NOW)
    assert names(events) == ["stream.started"]
    assert data(events, "stream.started") == {
        "egressId": "EG_1",
        "roomName": "my-live-room",
        "type": "stream",
        "quality": "720p",
        "layout": "speaker",
        "destinations": ["rtmp://one.example.com/app/***", "rtmp://two.example.com/app/***"],
    }


def test_both_families_for_both() -> None:
    """B-45: the same egress, `type` by family."""
    events = started_events(egress_of(type="both", results=BOTH_STREAMING), NOW)
    assert names(events) == ["recording.started", "recording_started", "stream.started"]
    assert data(events, "recording.started")["type"] == "record"
    assert data(events, "stream.started")["type"] == "stream"


def test_a_change_of_a_destination() -> None:
    """WH-06, B-85: strings in `destinations`, objects only in a key of their own."""
    before = egress_of(type="stream", status=EgressStatus.ACTIVE, results=BOTH_STREAMING)
    after = with_streams(before, stream_of("one", started_at=BEGAN), stream_of("two"))
    (event,) = changed_events(before, after, None, NOW)
    told = data([event], "stream.updated")
    assert told["destinations"] == ["rtmp://one.example.com/app/***", "rtmp://two.example.com/app/***"]
    assert told["status"] == "STARTED"
    assert [one["connected"] for one in told["streams"]] == [True, False]


def test_a_warning() -> None:
    """Issue section 5: what `egress.ended` would name it by, and what threatens it; nothing of the host."""
    egress = egress_of(status=EgressStatus.ACTIVE)
    warning = {
        "code": "DISK_LOW",
        "message": "The disk of the server is filling up; the egress ends before it is full",
    }
    known = {"egressId": "EG_1", "roomName": "my-live-room", "type": "record", "status": "STARTED"}
    event = cautioned_event(egress, DISK_FILLS, NOW)
    assert event.subject == "EG_1"
    assert data([event], "egress.updated") == known | {"recordingId": "rec_1", "warning": warning}
    streamed = replace(egress, type="stream", recording_id=None)
    told = data([cautioned_event(streamed, DISK_FILLS, NOW)], "egress.updated")
    assert told == known | {"type": "stream", "warning": warning}


def test_other_changes_tell_nothing() -> None:
    before = egress_of(type="both", results=BOTH_STREAMING)
    after = replace(before, status=EgressStatus.ACTIVE, active_at=BEGAN, paused="cut")
    assert changed_events(before, after, None, NOW) == []


def test_a_recordings_end() -> None:
    """Half a second rounds up.

    WH-37, WH-38, WH-39, WH-40, WH-41, WH-42, WH-43, RT-22, RT-23, RT-24, RT-25, RT-26, RT-27, RT-28, WH-19,
    B-08.
    """
    before = egress_of(status=EgressStatus.ENDING)
    after = concluded(before, completed(STOPPED, BEGAN), DONE, BEGAN)
    recording = recording_after(recording_of(), after)
    events = changed_events(before, after, recording, NOW)
    assert names(events) == [
        "recording.completed",
        "egress_ended",
        "recording_stopped",
        "recording_finished",
        "egress.ended",
    ]
    completed_data = {
        "recordingId": "rec_1",
        "egressId": "EG_1",
        "roomName": "my-live-room",
        "status": "COMPLETED",
        "durationSec": 3600,
        "fileUrl": FILE.location,
        "fileSize": 104_857_600,
    }
    assert data(events, "recording.completed") == completed_data
    assert data(events, "egress.ended") == completed_data | {"type": "record"}
    assert json.loads(events[1].body) == {
        "event": "egress_ended",
        "egressId": "EG_1",
        "roomId": "my-live-room",
        "file": "recordings/rec_1.mp4",
        "duration": 3600,
        "size": 104_857_600,
    }
    assert changed_events(after, after, recording, NOW) == []


def test_images_alone_are_no_recording() -> None:
    """B-44: there is no recordingId to tell of."""
    before = egress_of(recording_id=None)
    assert started_events(before, NOW) == []
    after = concluded(before, completed(STOPPED, BEGAN), Results(), BEGAN)
    assert names(changed_events(before, after, None, NOW)) == ["egress.ended"]


def test_a_failed_recording() -> None:
    """WH-04, E.1: no egress_ended without a file."""
    before = egress_of(status=EgressStatus.ACTIVE)
    after = concluded(before, failed(Failing("EGRESS_FAILED", "the page crashed"), 0), Results(), BEGAN)
    events = changed_events(before, after, recording_after(recording_of(), after), NOW)
    assert names(events) == [
        "recording.failed",
        "recording_stopped",
        "recording_finished",
        "egress.ended",
    ]
    told = data(events, "recording.failed")
    assert (told["status"], told["errorCode"], told["errorMessage"]) == (
        "FAILED",
        "EGRESS_FAILED",
        "the page crashed",
    )


def test_a_limit_completes_what_has_a_file() -> None:
    """E.1: LIMIT_REACHED."""
    before = egress_of(status=EgressStatus.ENDING)
    outcome = limited(LIMIT, LIMIT_REACHED, BEGAN)
    with_file = concluded(before, outcome, DONE, BEGAN)
    assert "recording.completed" in names(changed_events(before, with_file, None, NOW))
    without = concluded(before, outcome, Results(), BEGAN)
    assert "recording.failed" in names(changed_events(before, without, None, NOW))


def test_a_stream_that_was_refused() -> None:
    """EG-48, WH-44, WH-45, WH-46."""
    before = egress_of(
        type="stream", status=EgressStatus.ACTIVE, results=Results(streams=(stream_of("one"),))
    )
    broken = with_streams(
        before, stream_of("one", StreamStatus.FAILED, error=REFUSED.message, error_code=REFUSED.code)
    )
    assert names(changed_events(before, broken, None, NOW)) == ["stream.updated"]
    after = concluded(broken, failed(REFUSED, BEGAN), broken.results, BEGAN)
    events = changed_events(broken, after, None, NOW)
    assert names(events) == ["stream.failed", "egress.ended"]
    told = data(events, "stream.failed")
    assert {key: told[key] for key in ("egressId", "roomName", "status", "errorMessage", "errorCode")} == {
        "egressId": "EG_1",
        "roomName": "my-live-room",
        "status": "FAILED",
        "errorMessage": REFUSED.message,
        "errorCode": REFUSED.code,
    }


def test_beside_a_file_the_stream_fails_alone_and_at_once() -> None:
    """B-45, design section 13: stream.failed when the last one fails, recording.completed at the end."""
    before = egress_of(type="both", status=EgressStatus.ACTIVE, results=BOTH_STREAMING)
    gone = {"error": REFUSED.message, "error_code": REFUSED.code}
    half = with_streams(before, stream_of("one", StreamStatus.FAILED, **gone), stream_of("two"))
    assert names(changed_events(before, half, None, NOW)) == ["stream.updated"]
    all_ = with_streams(
        half,
        stream_of("one", StreamStatus.FAILED, **gone),
        stream_of("two", StreamStatus.FAILED, **gone),
    )
    events = changed_events(half, all_, None, NOW)
    assert names(events) == ["stream.updated", "stream.failed"]
    assert data(events, "stream.failed")["status"] == "FAILED"
    after = concluded(all_, completed(STOPPED, BEGAN), DONE, BEGAN)
    events = changed_events(all_, after, None, NOW)
    assert [name for name in names(events) if "." in name] == ["recording.completed", "egress.ended"]


def test_what_breaks_the_egress_breaks_its_streams() -> None:
    """Section 2.2, WH-46: streams that still ran fail with the egress's own error, told as soon as it is known."""
    before = egress_of(type="both", status=EgressStatus.ACTIVE, results=BOTH_STREAMING)
    after = closing(before, failed(Failing("EGRESS_FAILED", "the page crashed"), BEGAN))
    events = changed_events(before, after, None, NOW)
    assert names(events) == ["stream.updated", "stream.failed"]
    told = data(events, "stream.failed")
    assert (told["errorMessage"], told["errorCode"]) == ("the page crashed", "EGRESS_FAILED")


def test_a_stream_that_was_stopped() -> None:
    """WH-07: its destinations finish with it."""
    before = egress_of(
        type="stream",
        status=EgressStatus.ENDING,
        results=Results(streams=(stream_of("one", started_at=BEGAN),)),
    )
    after = concluded(before, completed(STOPPED, BEGAN + 90 * SECOND), before.results, BEGAN)
    events = changed_events(before, after, None, NOW)
    assert names(events) == ["stream.updated", "stream.completed", "egress.ended"]
    told = data(events, "stream.completed")
    assert (told["status"], told["durationSec"]) == ("COMPLETED", 90)
    assert after.results.streams[0].status is StreamStatus.FINISHED


@pytest.mark.parametrize("type_", ["stream", "both"])
def test_an_aborted_stream_failed(type_: str) -> None:
    """E.1: ABORTED is FAILED with EGRESS_ABORTED."""
    before = egress_of(type=type_, results=BOTH_STREAMING)
    after = concluded(before, aborted(STOPPED, BEGAN), before.results, BEGAN)
    assert streams_failed(after)
    assert data(changed_events(before, after, None, NOW), "stream.failed")["errorCode"] == "EGRESS_ABORTED"
