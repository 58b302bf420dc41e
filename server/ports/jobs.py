"""The job engine port: submit in a transaction, run under a fence, survive the death of any process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from server.domain.job import Job, NewJob, Progress
from server.domain.webhook import NewEvent
from server.ids import JobId, ProjectId
from server.ports.unit_of_work import UnitOfWork


class OwnershipLost(Exception):
    """Another worker claimed the job: stop at once, write nothing, delete nothing."""


class JobStopped(Exception):
    """Raised by a handler that left because `JobRun.stop` was set: the engine hands the job over, nothing failed."""


class JobRun(Protocol):
    """One attempt at one job by the worker that claimed it. Every write is fenced by the job's epoch."""

    @property
    def job(self) -> Job: ...

    @property
    def stop(self) -> asyncio.Event:
        """Set when the work must end early: ownership was lost or the worker is draining past its grace.

        The handler then leaves soon with `JobStopped` (a result it already has may still be returned); what it
        raises instead counts as such. Handlers that stay are cancelled.
        """
        ...

    async def secrets(self) -> Mapping[str, Any]: ...

    async def save(
        self,
        *,
        progress: Progress | None = None,
        result: Mapping[str, Any] | None = None,
        playable_at: datetime | None = None,
        events: Sequence[NewEvent] = (),
    ) -> None:
        """Raises OwnershipLost. Events are recorded in the same transaction.

        Without arguments it only confirms the ownership: call it before anything is deleted.
        """
        ...

    async def transact(self, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        """Runs `work` in one transaction and commits it, if the job is still ours; raises OwnershipLost otherwise.

        `work` may run again after a passing fault of the database.
        """
        ...


class RetryLater(Exception):
    """Raised by a handler for a passing fault (disk full, storage down): run again after `delay_sec`.

    When attempts are used up the job fails with `code` and `message` instead.
    """

    def __init__(self, code: str, message: str, *, delay_sec: float) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.delay_sec = delay_sec


class JobFailed(Exception):
    """Raised by a handler for a permanent fault: `code` is B-64's, `message` one sentence for the caller."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class JobHandler(Protocol):
    """Runs jobs of one kind.

    `run` returns the final result (merged into the stored one); it may be called again for the same job after a
    crash and must then continue or start over, using the same object keys. The `*_events` methods say which events
    are recorded in the same transaction as the state change they tell of.
    """

    kind: str

    async def run(self, run: JobRun) -> Mapping[str, Any]: ...
    def started_events(self, job: Job) -> Sequence[NewEvent]:
        """Recorded with the first claim only; none after a crash (design section 13)."""
        ...

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        """Further writes that must commit with COMPLETED, exactly once, e.g. usage counters; `job` is the final row."""
        ...

    def completed_events(self, job: Job) -> Sequence[NewEvent]: ...
    def failed_events(self, job: Job) -> Sequence[NewEvent]: ...

    async def on_settled(self, job: Job) -> None:
        """After COMPLETED or FAILED is committed (`job` is that row): remove what only a running job needs.

        Not called if the process dies in between; what is left then must be found by other means.
        """
        ...


class EventRecorder(Protocol):
    """Stores an event and its deliveries to the endpoints that subscribed to it, in the caller's transaction."""

    async def record(self, tx: UnitOfWork, event: NewEvent) -> None: ...


class ChangeFeed(Protocol):
    """Says that jobs may have been announced, here or in another process; it may also say so for nothing."""

    def start(self, wake: Callable[[], None]) -> None:
        """Calls `wake` in the running event loop after each change."""
        ...

    async def stop(self) -> None: ...


class JobEngine(Protocol):
    async def submit(self, tx: UnitOfWork, job: NewJob, *, delay_sec: float = 0.0) -> Job:
        """Adds the row and the wake-up in the caller's transaction; nothing runs before it commits."""
        ...

    def nudge(self) -> None:
        """Call it after the commit of a submission whose start is waited for: a worker in this process looks at once."""
        ...

    async def cancel(self, tx: UnitOfWork, project_id: ProjectId, job_id: JobId) -> bool:
        """PENDING → CANCELLED; False if a worker was first or the job has ended (B-29)."""
        ...

    async def start_worker(self, handlers: Sequence[JobHandler]) -> None:
        """Begins to claim jobs of these kinds, and to rescue those of dead workers."""
        ...

    async def drain(self, grace_sec: float) -> None:
        """Stops claiming; running jobs finish within the grace or are handed over without costing an attempt."""
        ...
