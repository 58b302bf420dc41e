"""The job engine: claims jobs from the database, keeps them while it lives, and takes over those of the dead."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from server.clock import Clock
from server.domain.job import Job, NewJob, RunningJob
from server.errors import ServiceError
from server.ids import JobId, ProjectId
from server.jobs.owner import is_gone, new_owner
from server.jobs.policy import AttemptPolicy
from server.jobs.run import Run
from server.jobs.settle import Settlement, events_of, record_all, settled
from server.jobs.watch import LossWatch
from server.observability.work_metrics import AttemptEnd, WorkMetrics
from server.ports.jobs import ChangeFeed, EventRecorder, JobHandler
from server.ports.unit_of_work import Database, UnitOfWork

_log = logging.getLogger(__name__)

_BEATS_PER_LEASE = 5
_PAUSE_AFTER_FAULT_SEC = 1.0
# After a cancelled handler: enough for one transaction.
_LAST_WRITE_SEC = 5.0
# Sums of weights such as 0.1 are not exact.
_ROUNDING = 1e-6


def default_concurrency() -> int:
    """Half the cores: one FFmpeg keeps about two of them busy."""
    return max(1, (os.cpu_count() or 1) // 2)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`concurrency` is how much of a kind this worker carries at a time, half the cores for kinds not named.

    Each job weighs what `weight_of` says, by default 1, so that `concurrency` is their number. What the next one will
    weigh is known only when it is claimed: `typical_weight` (by kind, default 1) is what must be free before. What a
    worker carries of `offered` kinds is told to the others, so that an API refuses what nobody could take. Jobs of `endless`
    kinds would use up any grace for nothing: a drain hands them over at once.

    A worker not heard from for `lease_sec` loses its jobs. `look_sec` is the pace of looking for such, and for work
    whose wake-up got lost. `stop_grace_sec` is how long a handler may take to leave once `stop` is set.
    `rescue_local` takes over at once from dead processes of this machine instead of after a lease.
    """

    concurrency: Mapping[str, float] = field(default_factory=dict)
    weight_of: Callable[[Job], float] = lambda job: 1.0  # noqa: ARG005 - the signature of all others
    typical_weight: Mapping[str, float] = field(default_factory=dict)
    offered: tuple[str, ...] = ()
    endless: tuple[str, ...] = ()
    lease_sec: float = 6.0
    look_sec: float = 2.0
    stop_grace_sec: float = 10.0
    rescue_local: bool = True
    attempts: AttemptPolicy = field(default_factory=AttemptPolicy)


class LeaseJobEngine:
    """Implements `JobEngine`. One per process; `submit` and `cancel` need no worker."""

    def __init__(
        self,
        database: Database,
        recorder: EventRecorder,
        clock: Clock,
        feed: ChangeFeed,
        options: EngineOptions | None = None,
        *,
        metrics: WorkMetrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._clock = clock
        self._feed = feed
        self._options = options or EngineOptions()
        self._monotonic = monotonic
        self._metrics = metrics or WorkMetrics()
        self._owner = new_owner()
        self._settlement = Settlement(recorder, clock, self._options.attempts)
        self._watch = LossWatch(
            lease_sec=self._options.lease_sec,
            max_gap_sec=max(2.5 * self._options.look_sec, self._options.lease_sec / 2),
            is_gone=self._is_gone,
            monotonic=monotonic,
        )
        self._handlers: dict[str, JobHandler] = {}
        # The project served last, by kind; random at first, so that restarts favour nobody.
        self._turn: dict[str, str] = {}
        self._runs: dict[Run, asyncio.Task[None]] = {}
        self._tidying: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._look_at = float("-inf")
        self._draining = False
        self._claiming: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    async def submit(self, tx: UnitOfWork, job: NewJob, *, delay_sec: float = 0.0) -> Job:
        """Adds the row and the wake-up in the caller's transaction; nothing runs before it commits."""
        added = await tx.jobs.add(job, self._clock.now())
        await tx.queue.announce(job.id, delay_sec=delay_sec)
        return added

    def nudge(self) -> None:
        """A worker in this process looks for work at once, without waiting for the change feed."""
        self._look.set()

    async def cancel(self, tx: UnitOfWork, project_id: ProjectId, job_id: JobId) -> bool:
        """PENDING → CANCELLED; False if a worker was first or the job has ended (B-29)."""
        return await tx.jobs.cancel(project_id, job_id, self._clock.now())

    async def start_worker(self, handlers: Sequence[JobHandler]) -> None:
        """Begins to claim jobs of these kinds, and to rescue those of dead workers."""
        self._handlers = {handler.kind: handler for handler in handlers}
        for kind in self._handlers:
            self._metrics.takes(kind)
        self._turn = {kind: "c" + secrets.token_hex(8) for kind in self._handlers}
        self._feed.start(self._look.set)
        self._beating = asyncio.create_task(self._beat_forever(), name="job-beat")
        self._claiming = asyncio.create_task(self._claim_forever(), name="job-claim")
        _log.info("worker %s takes %s jobs", self._owner, ", ".join(sorted(self._handlers)))

    async def drain(self, grace_sec: float) -> None:
        """Stops claiming; running jobs finish within the grace or are handed over without costing an attempt."""
        self._draining = True
        self._look.set()
        if self._claiming is not None:
            await _end(self._claiming, _LAST_WRITE_SEC)
        await self._withdraw()
        for run in self._runs:
            if run.job.kind in self._options.endless:
                run.stop.set()
        await self._wait_for_runs(grace_sec)
        for run in self._runs:
            run.stop.set()
        await self._wait_for_runs(self._options.stop_grace_sec)
        for task in (*self._runs.values(), *self._tidying):
            task.cancel()
        await self._wait_for_runs(_LAST_WRITE_SEC)
        if self._beating is not None:
            await _end(self._beating, 0.0)
        await self._feed.stop()

    async def _withdraw(self) -> None:
        if not self._options.offered:
            return
        with suppress(ServiceError):
            async with self._database.begin() as tx:
                await tx.workers.withdraw(self._owner)
                await tx.commit()

    async def _wait_for_runs(self, timeout_sec: float) -> None:
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=timeout_sec)

    # --- claiming

    async def _claim_forever(self) -> None:
        while not self._draining:
            self._look.clear()
            try:
                await self._look_for_lost()
                pause = await self._fill()
            except ServiceError as error:
                _log.warning("jobs cannot be claimed: %s", error.message)
                pause = _PAUSE_AFTER_FAULT_SEC
            except Exception:  # noqa: BLE001 - one broken look must not end the worker
                _log.exception("jobs cannot be claimed")
                pause = _PAUSE_AFTER_FAULT_SEC
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look.wait()

    async def _look_for_lost(self) -> None:
        now = self._monotonic()
        if now < self._look_at:
            return
        async with self._database.read() as tx:
            running = await tx.queue.running(tuple(self._handlers))
        # While our own beats fail (a full disk) our jobs look lost to us too; to leave them is not ours to decide.
        self._watch.observe(job for job in running if not self._runs_here(job))
        self._look_at = now + self._options.look_sec

    async def _fill(self) -> float:
        """Claims as much as there is room for; returns the seconds until the next look unless woken."""
        for kind in self._handlers:
            while self._has_room(kind) and (lost := self._watch.lost(kind)):
                await self._take_over(lost)
        open_kinds = [kind for kind in self._handlers if self._has_room(kind)]
        if not open_kinds:
            return self._options.look_sec
        async with self._database.read() as tx:
            waiting = await tx.queue.waiting(open_kinds)
        for kind in waiting.ready:
            while self._has_room(kind) and await self._claim_next(kind):
                pass
        due = waiting.due_in_sec
        return self._options.look_sec if due is None else min(max(due, 0.0), self._options.look_sec)

    def _has_room(self, kind: str) -> bool:
        limit = self._limit(kind)
        taken = sum(self._options.weight_of(run.job) for run in self._runs if run.job.kind == kind)
        needed = self._options.typical_weight.get(kind, 1.0)
        # A machine too small for anything typical still does one thing at a time.
        return not self._draining and (not taken or taken + needed <= limit + _ROUNDING)

    def _limit(self, kind: str) -> float:
        return self._options.concurrency.get(kind) or default_concurrency()

    async def _claim_next(self, kind: str) -> bool:
        async with self._database.begin() as tx:
            job_id = await tx.queue.next_waiting(kind, after=self._turn[kind])
            job = job_id and await self._claim(tx, job_id)
            if not job:
                return False
            await tx.commit()
        self._turn[kind] = job.project_id
        if job.epoch == 1:
            self._metrics.job_claimed(kind, (self._clock.now() - job.created_at).total_seconds())
        self._begin(job)
        return True

    async def _take_over(self, lost: RunningJob) -> None:
        """Runs a dead worker's job, or fails it if it has cost its last attempt."""
        handler = self._handlers[lost.kind]
        job = poisoned = None
        async with self._database.begin() as tx:
            losses = await tx.queue.mark_lost(lost)
            if losses is not None and (failure := self._options.attempts.after_loss(lost, losses)):
                seen = await tx.jobs.get(None, lost.id)
                poisoned = seen and await self._settlement.fail(tx, seen, handler, failure)
            elif losses is not None:
                job = await self._claim(tx, lost.id)
            await tx.commit()
        self._watch.settled(lost)
        if losses is not None:
            self._metrics.job_taken_over(lost.kind)
            _log.warning("job %s lost its worker %s (loss %d)", lost.id, lost.owner, losses)
        if poisoned is not None:
            # Beside the claims: it may take as long as a dead storage takes to say so.
            tidying = asyncio.create_task(settled(handler, poisoned), name=f"tidy-{lost.id}")
            self._tidying.add(tidying)
            tidying.add_done_callback(self._tidying.discard)
        if job is not None:
            self._begin(job)

    async def _claim(self, tx: UnitOfWork, job_id: JobId) -> Job | None:
        job = await tx.jobs.claim(job_id, owner=self._owner, now=self._clock.now())
        if job is not None and job.epoch == 1:
            started = events_of(self._handlers[job.kind].started_events, job)
            await record_all(tx, self._recorder, started)
        return job

    def _begin(self, job: Job) -> None:
        run = Run(job, self._database, self._recorder)
        self._metrics.attempt_began(job.kind)
        self._runs[run] = asyncio.create_task(self._attend(run), name=f"job-{job.id}")
        self._runs[run].add_done_callback(lambda _: self._ended(run))

    async def _attend(self, run: Run) -> None:
        began = self._monotonic()
        end = AttemptEnd.UNRECORDED
        try:
            end = await self._settlement.attend(run, self._handlers[run.job.kind])
        finally:
            self._metrics.attempt_ended(run.job.kind, end, self._monotonic() - began)

    def _ended(self, run: Run) -> None:
        del self._runs[run]
        self._look.set()

    # --- staying alive

    def _is_gone(self, job: RunningJob) -> bool:
        """Certainly without a worker: one of ours whose end could not be recorded, or a dead process's."""
        if job.owner == self._owner:
            return not self._runs_here(job)
        return self._options.rescue_local and is_gone(job.owner)

    def _runs_here(self, job: RunningJob) -> bool:
        return any((run.job.id, run.job.epoch) == (job.id, job.epoch) for run in self._runs)

    async def _beat_forever(self) -> None:
        while True:
            try:
                await self._offer()
                await self._beat()
            except ServiceError as error:
                _log.warning("no heartbeat: %s", error.message)
            except Exception:  # noqa: BLE001 - a missed beat is made up for by the next one
                _log.exception("no heartbeat")
            await asyncio.sleep(self._options.lease_sec / _BEATS_PER_LEASE)

    async def _offer(self) -> None:
        kinds = [kind for kind in self._options.offered if kind in self._handlers and not self._draining]
        if kinds:
            async with self._database.begin() as tx:
                for kind in kinds:
                    await tx.workers.offer(self._owner, kind, self._limit(kind))
                await tx.commit()

    async def _beat(self) -> None:
        runs = [run for run in self._runs if not run.lost]
        if not runs:
            return
        async with self._database.begin() as tx:
            held = await tx.queue.beat(self._owner, [run.job.id for run in runs])
            await tx.commit()
        for run in runs:
            task = self._runs.get(run)
            if task is not None and held.get(run.job.id) != run.job.epoch:
                run.lose()
                asyncio.get_running_loop().call_later(self._options.stop_grace_sec, task.cancel)


async def _end(task: asyncio.Task[None], grace_sec: float) -> None:
    await asyncio.wait({task}, timeout=grace_sec)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
