"""Jobs: their states, the one table of allowed transitions, and the values that travel between layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from server.ids import JobId, ProjectId

CONVERSION_KIND = "conversion"


class JobStatus(str, Enum):
    """VC-67 … VC-71."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    # PENDING → FAILED: attempts used up before a worker could claim it again.
    JobStatus.PENDING: frozenset({JobStatus.PROCESSING, JobStatus.CANCELLED, JobStatus.FAILED}),
    # PROCESSING → PENDING: handed over by a draining worker or waiting for a retry.
    # PROCESSING → PROCESSING: taken over from a dead worker under a higher epoch.
    JobStatus.PROCESSING: frozenset(
        {JobStatus.PROCESSING, JobStatus.PENDING, JobStatus.COMPLETED, JobStatus.FAILED}
    ),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is.

    `percent` 0–100 over all stages; `stage` one of downloading, probing, transcoding, uploading, verifying;
    `speed` is media seconds per wall second of the running stage; `eta_sec` seconds left, None while unknown.
    """

    percent: float
    stage: str
    speed: float | None = None
    eta_sec: float | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a service submits. `spec` is the validated request as JSON, without secrets.

    `secrets` is a JSON object with what must be encrypted at rest (for example S3 credentials of one request).
    `metadata` is the caller's own JSON value or None (GN-23).
    """

    id: JobId
    project_id: ProjectId
    kind: str
    spec: Mapping[str, Any]
    metadata: Any = None
    secrets: Mapping[str, Any] | None = None
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`: the truth that every API shows.

    `epoch` grows with each claim and fences the writes of a worker that lost the job. `result` holds what is
    known so far (output URLs, durations, AI results) as JSON in REST spelling.
    """

    id: JobId
    project_id: ProjectId
    kind: str
    status: JobStatus
    spec: Mapping[str, Any]
    metadata: Any
    attempt: int
    max_attempts: int
    epoch: int
    created_at: datetime
    owner: str | None = None
    progress: Progress | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    started_at: datetime | None = None
    playable_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    items: tuple[Job, ...]
    total: int


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A claim as other workers see it: `beat` grows while the owner lives, `epoch` with each claim."""

    id: JobId
    kind: str
    owner: str
    epoch: int
    beat: int
    attempt: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """`ready`: kinds with a job to claim now. `due_in_sec`: until the next delayed one, None if there is none."""

    ready: frozenset[str]
    due_in_sec: float | None
