"""The transaction port: repositories that share one database transaction, committed explicitly."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from server.domain.job import Job, JobPage, JobStatus, NewJob, Progress, RunningJob, Waiting
from server.domain.project import ApiKey, LiveKitKey, Project, Usage
from server.domain.room import OpenRoom, RoomMemory, RoomScope, Visit
from server.domain.webhook import AttemptPage, Delivery, DeliveryAttempt, NewEvent, WebhookEndpoint
from server.domain.workload import Workload
from server.ids import EventId, JobId, ProjectId
from server.ports.egresses import (
    AutoEgressRepository,
    EgressRepository,
    RecordingRepository,
    RoomEgressRepository,
)


class ProjectRepository(Protocol):
    async def add(self, project: Project) -> None:
        """Raise ServiceError already_exists if the id is taken."""
        ...

    async def get(self, project_id: ProjectId) -> Project | None: ...
    async def list(self, *, page: int, size: int) -> tuple[tuple[Project, ...], int]: ...
    async def save(self, project: Project) -> None: ...
    async def usage(self, project_id: ProjectId) -> Usage: ...

    async def add_usage(self, project_id: ProjectId, delta: Usage) -> None:
        """Adds each counter of `delta` atomically."""
        ...


class KeyRepository(Protocol):
    async def add_api_key(self, key: ApiKey) -> None: ...
    async def find_api_key(self, digest: str) -> ApiKey | None: ...
    async def list_api_keys(self, project_id: ProjectId) -> tuple[ApiKey, ...]: ...

    async def revoke_api_key(self, project_id: ProjectId, key_id: str, at: datetime) -> ApiKey | None:
        """The revoked key, or None if the project has none of that id."""
        ...

    async def touch_api_key(self, key_id: str, at: datetime) -> None: ...
    async def add_livekit_key(self, key: LiveKitKey) -> None: ...
    async def find_livekit_key(self, api_key: str) -> LiveKitKey | None: ...
    async def list_livekit_keys(self, project_id: ProjectId) -> tuple[LiveKitKey, ...]: ...
    async def revoke_livekit_key(self, project_id: ProjectId, api_key: str) -> bool: ...


class JobRepository(Protocol):
    """Writes by workers carry `epoch` and return False once another worker has claimed the job."""

    async def add(self, job: NewJob, now: datetime) -> Job: ...

    async def get(self, project_id: ProjectId | None, job_id: JobId) -> Job | None:
        """None also if it belongs to another project; `project_id=None` is for workers."""
        ...

    async def secrets(self, job_id: JobId) -> Mapping[str, Any]:
        """The decrypted `NewJob.secrets`, `{}` if there were none."""
        ...

    async def list(
        self, project_id: ProjectId, *, kind: str, status: JobStatus | None, page: int, size: int
    ) -> JobPage:
        """Newest first."""
        ...

    async def claim(self, job_id: JobId, *, owner: str, now: datetime) -> Job | None:
        """PENDING or PROCESSING → PROCESSING under `epoch + 1`, `attempt + 1`; None if final or gone."""
        ...

    async def cancel(self, project_id: ProjectId, job_id: JobId, now: datetime) -> bool:
        """Compare-and-set PENDING → CANCELLED (B-29)."""
        ...

    async def release(self, job_id: JobId, *, epoch: int, refund_attempt: bool) -> bool:
        """PROCESSING → PENDING for hand-over or delayed retry; a drain refunds its attempt."""
        ...

    async def update(
        self,
        job_id: JobId,
        *,
        epoch: int,
        progress: Progress | None = None,
        result: Mapping[str, Any] | None = None,
        playable_at: datetime | None = None,
    ) -> bool:
        """Merges `result` (shallow) into the stored one; None leaves a value as it is."""
        ...

    async def complete(
        self, job_id: JobId, *, epoch: int, result: Mapping[str, Any], now: datetime
    ) -> bool: ...

    async def fail(self, job_id: JobId, *, epoch: int, code: str, message: str, now: datetime) -> bool: ...

    async def amend(self, job_id: JobId, *, result: Mapping[str, Any]) -> bool:
        """Merges `result` (shallow) into that of a job that has ended; False if there is no such."""
        ...


class JobQueueRepository(Protocol):
    """What the job engine needs beyond `JobRepository`: whose turn it is, and who still lives."""

    async def announce(self, job_id: JobId, *, delay_sec: float) -> None:
        """Makes a PENDING job due in `delay_sec`, an hour at most, and wakes idle workers when the transaction commits."""
        ...

    async def waiting(self, kinds: Sequence[str]) -> Waiting:
        """A look without locks, for a read unit of work."""
        ...

    async def next_waiting(self, kind: str, *, after: str) -> JobId | None:
        """The oldest due PENDING job of the first project behind `after` by id, the first of all coming after the last.

        Locked until the transaction ends; jobs that others are claiming are passed over.
        """
        ...

    async def running(self, kinds: Sequence[str]) -> tuple[RunningJob, ...]: ...

    async def beat(self, owner: str, job_ids: Sequence[JobId]) -> Mapping[JobId, int]:
        """Says that `owner` lives; the epochs of those jobs that it still owns."""
        ...

    async def mark_lost(self, seen: RunningJob) -> int | None:
        """Compare-and-set on epoch and beat: how often this job has lost its worker, None if it moved on since."""
        ...


class WebhookRepository(Protocol):
    async def add(self, endpoint: WebhookEndpoint) -> None: ...
    async def get(self, project_id: ProjectId, endpoint_id: str) -> WebhookEndpoint | None: ...

    async def list(self, project_id: ProjectId) -> tuple[WebhookEndpoint, ...]:
        """Without those of single egresses."""
        ...

    async def save(self, endpoint: WebhookEndpoint) -> None: ...
    async def delete(self, project_id: ProjectId, endpoint_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """An attempt and what follows from it: see `OutboxRepository.record_attempt`."""

    attempt: DeliveryAttempt
    delivered: bool
    next_attempt_at: datetime | None


class OutboxRepository(Protocol):
    """Events and their deliveries; `record` is called inside the transaction of the state change."""

    async def record(self, event: NewEvent, endpoint_ids: Sequence[str]) -> None:
        """Stores the event and one PENDING delivery per endpoint, due now."""
        ...

    async def record_all(self, recorded: Sequence[tuple[NewEvent, Sequence[str]]]) -> None:
        """`record` for many, in this order, at the price of one."""
        ...

    async def claim_due(
        self,
        *,
        owner: str,
        now: datetime,
        lease: timedelta,
        limit: int,
        per_endpoint: int = 4,
        skip: Collection[str] = (),
    ) -> tuple[Delivery, ...]:
        """At most one delivery per (endpoint, subject): the oldest PENDING one, if due, not leased by a live owner.
        One that has failed HOLDING_ATTEMPTS times no longer holds up those after it.

        No endpoint gets more than `per_endpoint` of the claimed and still leased deliveries together, so that one with
        a long backlog cannot fill every claim; endpoints in `skip` get none.
        """
        ...

    async def next_due(self) -> datetime | None:
        """When the earliest PENDING delivery is due, None if there is none."""
        ...

    async def record_attempt(
        self, attempt: DeliveryAttempt, *, delivered: bool, next_attempt_at: datetime | None
    ) -> None:
        """Logs the attempt; then DELIVERED, or PENDING again at `next_attempt_at`, or DEAD when that is None."""
        ...

    async def record_attempts(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """`record_attempt` for many, at the price of one."""
        ...

    async def attempts(
        self, project_id: ProjectId, *, endpoint_id: str | None, page: int, size: int
    ) -> AttemptPage: ...

    async def replay(
        self,
        project_id: ProjectId,
        endpoint_id: str,
        *,
        event_id: EventId | None,
        since: datetime | None,
        now: datetime,
    ) -> int:
        """Makes matching deliveries PENDING and due again with a fresh schedule; how many."""
        ...

    async def purge(self, *, before: datetime) -> int:
        """Deletes events, deliveries and attempts older than `before` that are not PENDING; how many events.

        With them go endpoints of single egresses that have ended and have nothing left to deliver.
        """
        ...


IDEMPOTENCY_KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """What an `Idempotency-Key` already answered; `reply` None while the first call still runs."""

    fingerprint: str
    reply: bytes | None = field(repr=False)


class IdempotencyRepository(Protocol):
    async def begin(
        self, project_id: str, key: str, method: str, fingerprint: str, now: datetime
    ) -> StoredReply | None:
        """Reserves the key and returns None, or returns what is stored under it (younger than 24 h)."""
        ...

    async def finish(self, project_id: str, key: str, method: str, reply: bytes) -> None:
        """Stores the reply, encrypted."""
        ...

    async def abandon(self, project_id: str, key: str, method: str) -> None:
        """Frees the key after a failed call, so that a retry runs again."""
        ...

    async def purge(self, *, before: datetime) -> int: ...


class RoomRepository(Protocol):
    """What is remembered of LiveKit's rooms, so that each change is announced once."""

    async def recall(self, scope: RoomScope) -> RoomMemory:
        """Locks the rooms of `scope` until the transaction ends, whether they are known or not."""
        ...

    async def remember(self, changed: RoomMemory) -> None:
        """Adds rows or replaces those of the same sid."""
        ...

    async def present(self) -> RoomMemory:
        """Everything that has not ended yet, for a read unit of work."""
        ...

    async def open_rooms(self, project_ids: Sequence[ProjectId]) -> tuple[OpenRoom, ...]:
        """Of these projects."""
        ...

    async def visits(self, room_sid: str) -> tuple[Visit, ...]:
        """All of one session of a room, those that have ended too."""
        ...

    async def recording_settings(self, sids: Sequence[str]) -> Mapping[str, bool]:
        """Whether rooms may be recorded (B-46), without those for which nobody has said."""
        ...

    async def settle_recording(self, sid: str, *, allowed: bool) -> None:
        """For a known room; the first to say wins."""
        ...

    async def purge(self, *, before: datetime) -> int:
        """Forgets what ended before that; how many rooms."""
        ...


class WorkloadRepository(Protocol):
    """What is left to do, for metrics."""

    async def of_all(self) -> Workload:
        """Over all projects, for a read unit of work."""
        ...


class WorkerRepository(Protocol):
    """Which workers live and how much of a kind of job each carries, in the weights of `EngineOptions`.

    Ages are by the database's clock: those of hosts may be hours apart.
    """

    async def offer(self, owner: str, kind: str, weight: float) -> None:
        """Again and again while it holds."""
        ...

    async def withdraw(self, owner: str) -> None: ...

    async def offered(self, kind: str, *, within_sec: float) -> float | None:
        """What the workers that were heard of lately carry together; None if there is none."""
        ...


class UnitOfWork(Protocol):
    """One transaction. Leaving the block without `commit()` rolls back."""

    @property
    def projects(self) -> ProjectRepository: ...
    @property
    def keys(self) -> KeyRepository: ...
    @property
    def jobs(self) -> JobRepository: ...
    @property
    def queue(self) -> JobQueueRepository: ...
    @property
    def webhooks(self) -> WebhookRepository: ...
    @property
    def outbox(self) -> OutboxRepository: ...
    @property
    def idempotency(self) -> IdempotencyRepository: ...
    @property
    def rooms(self) -> RoomRepository: ...
    @property
    def egresses(self) -> EgressRepository: ...
    @property
    def recordings(self) -> RecordingRepository: ...
    @property
    def auto_egress(self) -> AutoEgressRepository: ...
    @property
    def room_egress(self) -> RoomEgressRepository: ...
    @property
    def workload(self) -> WorkloadRepository: ...

    @property
    def workers(self) -> WorkerRepository: ...

    async def commit(self) -> None: ...


class Database(Protocol):
    """Opens units of work. `begin` writes (SQLite: BEGIN IMMEDIATE); `read` never blocks writers."""

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]: ...
    def read(self) -> AbstractAsyncContextManager[UnitOfWork]: ...
