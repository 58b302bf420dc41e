"""Runs one claimed job to its end and writes down what came of it, in one transaction with its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.clock import Clock
from server.domain.job import Job
from server.domain.webhook import NewEvent
from server.jobs.policy import AttemptPolicy, Failure, Retry
from server.jobs.run import Run
from server.observability.work_metrics import AttemptEnd
from server.ports.jobs import EventRecorder, JobFailed, JobHandler, JobStopped, OwnershipLost, RetryLater
from server.ports.unit_of_work import UnitOfWork

_log = logging.getLogger(__name__)


def events_of(tell: Callable[[Job], Sequence[NewEvent]], job: Job) -> Sequence[NewEvent]:
    """What a handler wants told; its defects must not keep a job from its state."""
    try:
        return tell(job)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("job %s: its events could not be made", job.id)
        return ()


async def record_all(tx: UnitOfWork, recorder: EventRecorder, events: Sequence[NewEvent]) -> None:
    for event in events:
        await recorder.record(tx, event)


async def settled(handler: JobHandler, job: Job | None) -> None:
    """Lets a handler tidy up behind the final row; its defects change nothing that is committed."""
    if job is None:
        return
    try:
        await handler.on_settled(job)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("job %s: what it left behind could not be removed", job.id)


class Settlement:
    """From `handler.run` to the state behind it."""

    def __init__(self, recorder: EventRecorder, clock: Clock, policy: AttemptPolicy) -> None:
        self._recorder = recorder
        self._clock = clock
        self._policy = policy

    async def attend(self, run: Run, handler: JobHandler) -> AttemptEnd:
        """Never raises but CancelledError; a job that could not be settled is taken over as if the worker had died."""
        try:
            return await self._attend(run, handler)
        except OwnershipLost:
            _log.warning("job %s: claim %d was lost, nothing more is written", run.job.id, run.job.epoch)
            return AttemptEnd.LOST
        except Exception:  # noqa: BLE001 - the lease runs out and the job is taken over
            _log.exception("job %s: its end could not be recorded", run.job.id)
            return AttemptEnd.UNRECORDED

    async def _attend(self, run: Run, handler: JobHandler) -> AttemptEnd:
        try:
            result = await handler.run(run)
        except OwnershipLost:
            run.lose()
            raise
        except asyncio.CancelledError:
            if not run.stop.is_set():
                raise
            return await self._hand_over(run)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the policy's to judge
            return await self._after(run, handler, error)
        return await self._finish(run, handler, result)

    async def _finish(self, run: Run, handler: JobHandler, result: Mapping[str, Any]) -> AttemptEnd:
        try:
            await self._complete(run, handler, result)
        except OwnershipLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is the policy's to judge
            return await self._after(run, handler, error)
        return AttemptEnd.COMPLETED

    async def _after(self, run: Run, handler: JobHandler, error: Exception) -> AttemptEnd:
        if run.stop.is_set():
            return await self._hand_over(run)
        match error:
            case JobFailed() | RetryLater():
                _log.info("job %s attempt %d: %s %s", run.job.id, run.job.attempt, error.code, error.message)
            case JobStopped():
                _log.error("job %s: its handler stopped without being asked to", run.job.id)
            case _:
                _log.error("job %s attempt %d broke", run.job.id, run.job.attempt, exc_info=error)
        match self._policy.after(error, run.job):
            case Retry(delay_sec):
                await self._release(run, refund_attempt=False, delay_sec=delay_sec)
                return AttemptEnd.RETRIED
            case Failure() as failure:
                await self._fail(run, handler, failure)
                return AttemptEnd.FAILED

    async def _hand_over(self, run: Run) -> AttemptEnd:
        await self._release(run, refund_attempt=True, delay_sec=0.0)
        _log.info("job %s was handed over", run.job.id)
        return AttemptEnd.HANDED_OVER

    async def _release(self, run: Run, *, refund_attempt: bool, delay_sec: float) -> None:
        async def write(tx: UnitOfWork) -> bool:
            if not await tx.jobs.release(run.job.id, epoch=run.job.epoch, refund_attempt=refund_attempt):
                return False
            await tx.queue.announce(run.job.id, delay_sec=delay_sec)
            return True

        await run.write(write)

    async def _complete(self, run: Run, handler: JobHandler, result: Mapping[str, Any]) -> None:
        final: Job | None = None

        async def write(tx: UnitOfWork) -> bool:
            nonlocal final
            job = run.job
            if not await tx.jobs.complete(job.id, epoch=job.epoch, result=result, now=self._clock.now()):
                return False
            final = await tx.jobs.get(None, job.id)
            assert final is not None
            await handler.on_completed(tx, final)
            await record_all(tx, self._recorder, events_of(handler.completed_events, final))
            return True

        await run.write(write)
        await settled(handler, final)

    async def _fail(self, run: Run, handler: JobHandler, failure: Failure) -> None:
        final: Job | None = None

        async def write(tx: UnitOfWork) -> bool:
            nonlocal final
            final = await self.fail(tx, run.job, handler, failure)
            return final is not None

        await run.write(write)
        await settled(handler, final)

    async def fail(self, tx: UnitOfWork, job: Job, handler: JobHandler, failure: Failure) -> Job | None:
        """The final row; None if the claim `job.epoch` is no longer the newest."""
        now = self._clock.now()
        if not await tx.jobs.fail(
            job.id, epoch=job.epoch, code=failure.code, message=failure.message, now=now
        ):
            return None
        final = await tx.jobs.get(None, job.id)
        assert final is not None
        await record_all(tx, self._recorder, events_of(handler.failed_events, final))
        return final
