"""What becomes of a job after a failed attempt, and after a lost worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from server.domain.job import Job, JobStatus, RunningJob
from server.ids import JobId, ProjectId
from server.jobs.policy import INTERNAL_MESSAGE, AttemptPolicy, Failure, Retry
from server.ports.jobs import JobFailed, RetryLater

POLICY = AttemptPolicy(first_pause_sec=2, factor=4, max_pause_sec=20)


def job(attempt: int, max_attempts: int) -> Job:
    return Job(
        JobId("cm1"),
        ProjectId("cl1"),
        "conversion",
        JobStatus.PROCESSING,
        {},
        None,
        attempt,
        max_attempts,
        epoch=attempt,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("error", "attempt", "outcome"),
    [
        (JobFailed("UNSUPPORTED_FORMAT", "no"), 1, Failure("UNSUPPORTED_FORMAT", "no")),
        (RetryLater("STORAGE_UNAVAILABLE", "down", delay_sec=7), 1, Retry(7)),
        (RetryLater("STORAGE_UNAVAILABLE", "down", delay_sec=7), 4, Failure("STORAGE_UNAVAILABLE", "down")),
        (RuntimeError("detail"), 1, Retry(2)),
        (RuntimeError("detail"), 2, Retry(8)),
        (RuntimeError("detail"), 3, Retry(20)),
        (RuntimeError("detail"), 4, Failure("INTERNAL", INTERNAL_MESSAGE)),
    ],
)
def test_after_an_attempt(error: Exception, attempt: int, outcome: Retry | Failure) -> None:
    """VC-70, B-64: permanent, passing and unexpected faults, with attempts left and without."""
    assert POLICY.after(error, job(attempt, 4)) == outcome


def test_however_many_attempts_there_were() -> None:
    """A job that is tried without end never waits longer than the longest pause."""
    assert POLICY.after(RuntimeError("detail"), job(100_000, 1_000_000)) == Retry(20)


@pytest.mark.parametrize(
    ("attempt", "losses", "outcome"),
    [
        (1, 1, None),
        (2, 2, None),
        (3, 3, Failure("INTERNAL", "the worker was lost 3 times")),
        (3, 1, Failure("INTERNAL", "the worker was lost 1 time")),
    ],
)
def test_after_a_loss(attempt: int, losses: int, outcome: Failure | None) -> None:
    lost = RunningJob(JobId("cm1"), "conversion", "a", epoch=3, beat=9, attempt=attempt, max_attempts=3)
    assert POLICY.after_loss(lost, losses) == outcome
