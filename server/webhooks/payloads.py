"""The data objects of BaxStream events, made from jobs (WB-06 to WB-37)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.clock import iso_millis
from server.domain.job import Job
from server.domain.webhook import NewEvent
from server.webhooks.envelopes import baxstream_event

CATEGORIZATION = "categorization"
MODERATION = "moderation"

_CATEGORIZATION_KEYS = (
    "primaryCategory",
    "confidence",
    "categories",
    "tags",
    "scores",
    "framesAnalyzed",
    "processingTimeMs",
)
_MODERATION_KEYS = ("safe", "violations", "scores", "flaggedFrames", "framesAnalyzed", "processingTimeMs")
_RESULT_KEYS: Mapping[str, tuple[str, ...]] = {
    CATEGORIZATION: _CATEGORIZATION_KEYS,
    MODERATION: _MODERATION_KEYS,
}
_INLINE_FLAGS: Mapping[str, str] = {CATEGORIZATION: "categorize", MODERATION: "moderate"}


def conversion_started(job: Job, *, now: datetime) -> NewEvent:
    """`video.conversion.started` (WB-06)."""
    data = {
        **_identity(job, "PROCESSING"),
        "outputFormats": list(job.spec["outputFormats"]),
        "metadata": job.metadata,
        "createdAt": iso_millis(job.created_at),
        "startedAt": iso_millis(job.started_at or now),
    }
    return _event("video.conversion.started", job, data, now)


def conversion_completed(job: Job, *, now: datetime) -> NewEvent:
    """`video.conversion.completed` (WB-21 … WB-34); an AI result only if it was asked for and is there (B-25)."""
    result = job.result
    data = {
        **_identity(job, "COMPLETED"),
        "outputUrl": result["outputUrl"],
        "thumbnailUrl": result.get("thumbnailUrl"),
        "outputFormats": list(job.spec["outputFormats"]),
        "renditionUrls": dict(result["renditionUrls"]),
        "durationSec": result["durationSec"],
        "segmentsCount": result["segmentsCount"],
        "costCents": result["costCents"],
        "metadata": job.metadata,
        "createdAt": iso_millis(job.created_at),
        "startedAt": iso_millis(job.started_at or now),
        "completedAt": iso_millis(job.completed_at or now),
    }
    for feature, flag in _INLINE_FLAGS.items():
        if job.spec.get(flag) and result.get(feature) is not None:
            data[feature] = _ai_result(feature, result[feature])
    return _event("video.conversion.completed", job, data, now)


def conversion_failed(job: Job, *, now: datetime) -> NewEvent:
    """`video.conversion.failed` (WB-36): no completedAt."""
    data = {
        **_identity(job, "FAILED"),
        "errorCode": job.error_code,
        "errorMessage": job.error_message,
        "metadata": job.metadata,
        "createdAt": iso_millis(job.created_at),
        "failedAt": iso_millis(job.failed_at or now),
    }
    return _event("video.conversion.failed", job, data, now)


def inline_ai_failed(job: Job, feature: str, *, code: str, message: str, now: datetime) -> NewEvent:
    """`categorization.failed` or `moderation.failed` of a conversion that asked for it (B-25).

    `feature` is CATEGORIZATION or MODERATION; the conversion itself goes on.
    """
    data = {
        **_identity(job, "FAILED"),
        "errorCode": code,
        "errorMessage": message,
        "metadata": job.metadata,
        "createdAt": iso_millis(job.created_at),
        "failedAt": iso_millis(now),
    }
    return _event(f"{feature}.failed", job, data, now)


def ai_completed(job: Job, feature: str, result: Mapping[str, Any], *, now: datetime) -> NewEvent:
    """`categorization.completed` or `moderation.completed` (WB-10, WB-13, WB-35) from the result's own fields."""
    data = {
        **_identity(job, "COMPLETED"),
        **_ai_result(feature, result),
        "metadata": job.metadata,
        "completedAt": iso_millis(job.completed_at or now),
    }
    return _event(f"{feature}.completed", job, data, now)


def _identity(job: Job, status: str) -> dict[str, Any]:
    return {
        "jobId": job.id,
        "projectId": job.project_id,
        "status": status,
        "inputUrl": job.spec.get("inputUrl"),
    }


def _ai_result(feature: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in _RESULT_KEYS[feature] if key in result}


def _event(name: str, job: Job, data: Mapping[str, Any], now: datetime) -> NewEvent:
    return baxstream_event(
        name, project_id=job.project_id, subject=job.id, data=data, metadata=job.metadata, now=now
    )
