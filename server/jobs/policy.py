"""What becomes of a job whose attempt failed."""

from __future__ import annotations

from dataclasses import dataclass

from server.domain.job import Job, RunningJob
from server.ports.jobs import JobFailed, RetryLater

INTERNAL = "INTERNAL"
INTERNAL_MESSAGE = "The job failed because of an internal error."

# Some jobs may be tried a million times, and no float holds the power of that.
_STEEPEST = 30


@dataclass(frozen=True, slots=True)
class Retry:
    delay_sec: float


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AttemptPolicy:
    """Pauses after unexpected errors: `first_pause_sec`, then `factor` times the one before, at most `max_pause_sec`."""

    first_pause_sec: float = 2.0
    factor: float = 4.0
    max_pause_sec: float = 120.0

    def after(self, error: BaseException, job: Job) -> Retry | Failure:
        """`job.attempt` counts the attempt that just ended."""
        last = job.attempt >= job.max_attempts
        match error:
            case JobFailed():
                return Failure(error.code, error.message)
            case RetryLater():
                return Failure(error.code, error.message) if last else Retry(error.delay_sec)
            case _ if last:
                return Failure(INTERNAL, INTERNAL_MESSAGE)
            case _:
                pause = self.first_pause_sec * self.factor ** min(job.attempt - 1, _STEEPEST)
                return Retry(min(pause, self.max_pause_sec))

    def after_loss(self, job: RunningJob, losses: int) -> Failure | None:
        """None: run it again. `losses` counts the workers that this job has lost, the last one included."""
        if job.attempt < job.max_attempts:
            return None
        return Failure(INTERNAL, f"the worker was lost {losses} time{'s' if losses != 1 else ''}")
