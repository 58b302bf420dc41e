"""Envelopes and the data objects of BaxStream events."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from server.domain.job import CONVERSION_KIND, Job, JobStatus
from server.domain.webhook import NewEvent
from server.ids import JobId, ProjectId
from server.webhooks.envelopes import core_event, encode, rtcstack_event
from server.webhooks.events import BAXSTREAM_EVENTS
from server.webhooks.payloads import (
    CATEGORIZATION,
    MODERATION,
    ai_completed,
    conversion_completed,
    conversion_failed,
    conversion_started,
    inline_ai_failed,
)


def at(second: int) -> datetime:
    return datetime(2026, 4, 17, 10, 0, second, 5_000, tzinfo=UTC)


METADATA = {"userId": "u_42", "deep": [1, 2.5, None, {"ü": "字"}]}
CATEGORIZED = {
    "id": "cm_ai",
    "status": "COMPLETED",
    "primaryCategory": "Sports",
    "confidence": 0.4523,
    "categories": [{"name": "Sports", "confidence": 0.4523, "primary": True}],
    "tags": ["football"],
    "scores": {"Sports": 0.4523},
    "framesAnalyzed": 8,
    "processingTimeMs": 750,
}
MODERATED = {
    "safe": True,
    "violations": [],
    "scores": {"violence": 0.02},
    "flaggedFrames": [],
    "framesAnalyzed": 8,
    "processingTimeMs": 980,
}
JOB = Job(
    id=JobId("cm_job_xyz789"),
    project_id=ProjectId("cl_proj_abc123"),
    kind=CONVERSION_KIND,
    status=JobStatus.PROCESSING,
    spec={
        "inputUrl": "https://source.example.com/video.mp4?token=1",
        "outputFormats": ["360p", "720p"],
        "ffmpegPreset": "fast",
        "hlsTime": 2,
        "categorize": False,
        "moderate": False,
    },
    metadata=METADATA,
    attempt=1,
    max_attempts=3,
    epoch=1,
    created_at=at(1),
    started_at=at(2),
)
DONE = replace(
    JOB,
    status=JobStatus.COMPLETED,
    completed_at=at(3),
    result={
        "outputUrl": "https://cdn.example.com/videos/master.m3u8",
        "thumbnailUrl": "https://cdn.example.com/videos/thumbnail.jpg",
        "renditionUrls": {
            "360p": "https://cdn.example.com/videos/360p/playlist.m3u8",
            "720p": "https://cdn.example.com/videos/720p/playlist.m3u8",
        },
        "durationSec": 125,
        "segmentsCount": 63,
        "costCents": 13,
        "manifest": "not for webhooks",
    },
)
FAILED = replace(
    JOB,
    status=JobStatus.FAILED,
    failed_at=at(4),
    error_code="DOWNLOAD_FAILED",
    error_message="HTTP 403 fetching input URL after 3 retries",
)
COMPLETED_KEYS = {
    "jobId", "projectId", "status", "inputUrl", "outputUrl", "thumbnailUrl", "outputFormats", "renditionUrls",
    "durationSec", "segmentsCount", "costCents", "metadata", "createdAt", "startedAt", "completedAt",
}  # fmt: skip
NOW = at(5)


def parsed(event: NewEvent) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(event.body)
    return body


def all_events() -> list[NewEvent]:
    return [
        conversion_started(JOB, now=NOW),
        conversion_completed(DONE, now=NOW),
        conversion_failed(FAILED, now=NOW),
        inline_ai_failed(JOB, CATEGORIZATION, code="AI_MODEL_UNAVAILABLE", message="no model", now=NOW),
        inline_ai_failed(JOB, MODERATION, code="AI_MODEL_UNAVAILABLE", message="no model", now=NOW),
        ai_completed(DONE, CATEGORIZATION, CATEGORIZED, now=NOW),
        ai_completed(DONE, MODERATION, MODERATED, now=NOW),
    ]


@pytest.mark.parametrize("event", all_events(), ids=lambda event: event.name)
def test_every_envelope_has_exactly_six_keys(event: NewEvent) -> None:
    """WB-15, WB-16, WB-17, WB-18, WB-19, WB-20, WB-54, B-14, B-15."""
    body = parsed(event)
    assert set(body) == {"event", "eventId", "timestamp", "projectId", "metadata", "data"}
    assert body["event"] == event.name
    assert event.name in BAXSTREAM_EVENTS
    assert body["eventId"] == event.id
    assert body["projectId"] == body["data"]["projectId"] == "cl_proj_abc123"
    assert body["timestamp"] == "2026-04-17T10:00:05.005Z"
    assert body["metadata"] == body["data"]["metadata"] == METADATA
    assert body["data"]["jobId"] == event.subject == "cm_job_xyz789"
    assert event.family == "baxstream"
    assert event.created_at == NOW


def test_started() -> None:
    """WB-06."""
    data = parsed(conversion_started(JOB, now=NOW))["data"]
    assert data["inputUrl"] == "https://source.example.com/video.mp4?token=1"
    assert data["outputFormats"] == ["360p", "720p"]
    assert data["status"] == "PROCESSING"
    assert data["startedAt"] == "2026-04-17T10:00:02.005Z"


def test_completed() -> None:
    """What else the job's result holds stays inside.

    WB-07, WB-21, WB-22, WB-23, WB-24, WB-25, WB-26, WB-27, WB-28, WB-29, WB-30, WB-31, WB-32, WB-48.
    """
    data = parsed(conversion_completed(DONE, now=NOW))["data"]
    assert set(data) == COMPLETED_KEYS
    assert data["status"] == "COMPLETED"
    assert data["outputUrl"] == DONE.result["outputUrl"]
    assert data["thumbnailUrl"] == DONE.result["thumbnailUrl"]
    assert data["renditionUrls"] == DONE.result["renditionUrls"]
    assert (data["durationSec"], data["segmentsCount"], data["costCents"]) == (125, 63, 13)
    assert data["createdAt"] == "2026-04-17T10:00:01.005Z"
    assert data["startedAt"] == "2026-04-17T10:00:02.005Z"
    assert data["completedAt"] == "2026-04-17T10:00:03.005Z"


def test_completed_without_a_thumbnail_says_null() -> None:
    """Audio without cover art has none (design section 13); the key stays."""
    result = {key: value for key, value in DONE.result.items() if key != "thumbnailUrl"}
    assert parsed(conversion_completed(replace(DONE, result=result), now=NOW))["data"]["thumbnailUrl"] is None


def test_inline_results_only_when_asked_for_and_there() -> None:
    """WB-33, WB-34, WB-53, VC-72, B-25: no id or status inside; asked for but failed leaves the key out."""
    result = {**DONE.result, "categorization": CATEGORIZED, "moderation": MODERATED}
    unasked = replace(DONE, result=result)
    assert set(parsed(conversion_completed(unasked, now=NOW))["data"]) == COMPLETED_KEYS

    both = replace(DONE, result=result, spec={**DONE.spec, "categorize": True, "moderate": True})
    data = parsed(conversion_completed(both, now=NOW))["data"]
    assert set(data) == COMPLETED_KEYS | {"categorization", "moderation"}
    assert set(data["categorization"]) == set(CATEGORIZED) - {"id", "status"}
    assert data["moderation"] == MODERATED
    assert data["metadata"] == METADATA

    failed = replace(both, result=DONE.result)
    assert set(parsed(conversion_completed(failed, now=NOW))["data"]) == COMPLETED_KEYS


def test_failed() -> None:
    """WB-08, WB-36, WB-37: no completedAt."""
    data = parsed(conversion_failed(FAILED, now=NOW))["data"]
    assert data == {
        "jobId": "cm_job_xyz789",
        "projectId": "cl_proj_abc123",
        "status": "FAILED",
        "inputUrl": "https://source.example.com/video.mp4?token=1",
        "errorCode": "DOWNLOAD_FAILED",
        "errorMessage": "HTTP 403 fetching input URL after 3 retries",
        "metadata": METADATA,
        "createdAt": "2026-04-17T10:00:01.005Z",
        "failedAt": "2026-04-17T10:00:04.005Z",
    }


@pytest.mark.parametrize("feature", [CATEGORIZATION, MODERATION])
def test_inline_ai_failed(feature: str) -> None:
    """WB-11, WB-14, B-25."""
    event = inline_ai_failed(
        JOB, feature, code="AI_MODEL_UNAVAILABLE", message="run `bax models install`", now=NOW
    )
    assert event.name == f"{feature}.failed"
    data = parsed(event)["data"]
    assert data["status"] == "FAILED"
    assert data["errorCode"] == "AI_MODEL_UNAVAILABLE"
    assert data["errorMessage"] == "run `bax models install`"
    assert data["failedAt"] == "2026-04-17T10:00:05.005Z"


def test_moderation_completed_has_the_seeds_keys() -> None:
    """WB-13, WB-35."""
    data = parsed(ai_completed(DONE, MODERATION, {**MODERATED, "inputType": "VIDEO"}, now=NOW))["data"]
    assert set(data) == {
        "jobId", "projectId", "status", "inputUrl", "safe", "violations", "scores", "flaggedFrames",
        "framesAnalyzed", "processingTimeMs", "metadata", "completedAt",
    }  # fmt: skip


def test_categorization_completed_has_the_seeds_keys() -> None:
    """WB-10."""
    data = parsed(ai_completed(DONE, CATEGORIZATION, CATEGORIZED, now=NOW))["data"]
    assert {"primaryCategory", "categories", "scores", "tags"} <= set(data)


def test_absent_metadata_is_null_in_both_places() -> None:
    """WB-19, B-88."""
    body = parsed(conversion_failed(replace(FAILED, metadata=None), now=NOW))
    assert body["metadata"] is None
    assert body["data"]["metadata"] is None


def test_event_ids_are_distinct() -> None:
    """WB-16."""
    ids = {conversion_started(JOB, now=NOW).id for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"cm[a-z0-9]{23}", event_id) for event_id in ids)


def test_body_is_compact_utf8() -> None:
    body = conversion_started(JOB, now=NOW).body
    assert b'", "' not in body
    assert "字".encode() in body


def test_json_cannot_carry_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"x": float("nan")})


def test_core_envelope() -> None:
    """WH-21, WH-22, WH-23, WH-24, GN-21, B-14, B-15: three keys, then the two additive ones; seconds."""
    event = core_event(
        "room.started",
        project_id=ProjectId("cl1"),
        subject="lobby",
        data={"roomName": "lobby"},
        now=NOW,
    )
    assert list(parsed(event)) == ["event", "timestamp", "data", "eventId", "projectId"]
    assert parsed(event)["timestamp"] == "2026-04-17T10:00:05Z"
    assert parsed(event)["data"] == {"roomName": "lobby"}
    assert (event.family, event.subject) == ("core", "lobby")


def test_rtcstack_envelope_is_flat() -> None:
    """RT-23, RT-24, RT-25, RT-26, RT-27, RT-28."""
    fields = {
        "egressId": "EG_1",
        "roomId": "room-abc",
        "file": "room-abc/2024-04-21T10-00-00.mp4",
        "duration": 3600,
        "size": 512000000,
    }
    event = rtcstack_event(
        "egress_ended", project_id=ProjectId("cl1"), subject="EG_1", fields=fields, now=NOW
    )
    assert parsed(event) == {"event": "egress_ended", **fields}
    assert event.family == "rtcstack"
