"""The egress job: it captures until there is a reason to end, and hands what was recorded to its delivery."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from server.domain.egress import EGRESS_KIND, Egress, EgressStatus, Failing
from server.domain.job import Job, JobStatus, NewJob
from server.domain.json_form import from_json, to_json
from server.domain.webhook import NewEvent
from server.egress.books import Books, rewrite
from server.egress.capture import Capture, Studio
from server.egress.events import EgressWatcher
from server.egress.journal import Journal
from server.egress.outcome import CAPTURE_BROKE, RECORDER_FAILS, Outcome, concluded, failed, recording_after
from server.egress.uploads import has_undelivered
from server.errors import ServiceError
from server.ids import JobId, derived_job_id
from server.ports.jobs import JobEngine, JobRun, JobStopped, OwnershipLost
from server.ports.unit_of_work import Database, UnitOfWork

_log = logging.getLogger(__name__)

# Keys of the job's result.
OUTCOME = "outcome"
DELIVERS = "delivers"
# What breaks for reasons of our own is tried so often.
BROKEN_ATTEMPTS = 5
# With pauses of at most five minutes: more than half a day of a storage that is away.
DELIVERY_ATTEMPTS = 200


class EgressHandler:
    """JobHandler of kind `egress`; its spec is `{"egressId": …}`. `delivery_kind` is the one of this host."""

    kind = EGRESS_KIND

    def __init__(self, studio: Studio, engine: JobEngine, delivery_kind: str) -> None:
        self._studio = studio
        self._engine = engine
        self._delivery_kind = delivery_kind

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        """Raise JobStopped, OwnershipLost; whatever goes wrong with the capture ends in the egress's own row."""
        egress_id = run.job.spec["egressId"]
        books = Books(run, egress_id, self._studio.watchers, self._studio.clock)
        async with self._studio.database.read() as tx:
            orders = await tx.egresses.orders(egress_id)
        egress = await books.begin(orders.destinations)
        if egress is None or egress.status.is_final:
            return {}
        journal = await Journal.open(self._studio.folder / egress_id)
        capture = Capture(self._studio, run, books, egress, orders, journal)
        try:
            outcome = await capture.capture()
        except (JobStopped, OwnershipLost, ServiceError):
            raise
        except Exception:
            if run.job.attempt < BROKEN_ATTEMPTS:
                raise
            _log.exception("egress %s: its capture broke again and again", egress_id)
            outcome = failed(CAPTURE_BROKE, books.now())
        return await self._conclude(books, egress, journal, outcome)

    async def _conclude(
        self, books: Books, egress: Egress, journal: Journal, outcome: Outcome
    ) -> Mapping[str, Any]:
        outputs = egress.plan.outputs
        delivers = journal.footage.has_media and bool(outputs.files or outputs.segments or outputs.images)
        if delivers:
            await books.change(lambda now: closing(now, outcome))
        else:
            await books.finish(lambda now: concluded(now, outcome, now.results, books.now()), recording_after)
        return {OUTCOME: to_json(outcome), DELIVERS: delivers}

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        """None: they need the egress's row and are told in the run's first transaction, once (E.1)."""
        return ()

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        """The delivery belongs to this host: what was recorded lies on its disk."""
        if not job.result.get(DELIVERS):
            return
        egress_id = job.spec["egressId"]
        delivery = NewJob(
            id=delivery_job_id(egress_id),
            project_id=job.project_id,
            kind=self._delivery_kind,
            spec={"egressId": egress_id, OUTCOME: job.result[OUTCOME]},
            max_attempts=DELIVERY_ATTEMPTS,
        )
        await self._engine.submit(tx, delivery)

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    async def on_settled(self, job: Job) -> None:
        """Wakes the delivery; without one, nothing of the egress stays on disk but what is nowhere else."""
        if job.result.get(DELIVERS):
            self._engine.nudge()
            return
        if job.status is JobStatus.FAILED:
            now = int(self._studio.clock.now().timestamp() * 1e9)
            await fail_abandoned(self._studio.database, self._studio.watchers, job, RECORDER_FAILS, now)
            return
        await self._remove(job.spec["egressId"])

    async def _remove(self, egress_id: str) -> None:
        """Its end may have been written by another host, which had nothing of what lies here."""
        async with self._studio.database.read() as tx:
            egress = await tx.egresses.get(None, egress_id)
        journal = await Journal.open(self._studio.folder / egress_id)
        if egress is None or not await asyncio.to_thread(has_undelivered, journal, egress.plan.outputs):
            await asyncio.to_thread(shutil.rmtree, journal.folder, ignore_errors=True)


def delivery_job_id(egress_id: str) -> JobId:
    return derived_job_id(egress_id, "delivery")


def closing(egress: Egress, outcome: Outcome) -> Egress:
    """Captured, but not yet where it belongs."""
    ended = concluded(egress, outcome, egress.results, 0)
    return replace(ended, status=EgressStatus.ENDING, failing=None, ended_at=0)


def outcome_of(job: Job) -> Outcome:
    """What a capture handed to its delivery."""
    return from_json(Outcome, job.spec[OUTCOME])


async def fail_abandoned(
    database: Database, watchers: Sequence[EgressWatcher], job: Job, failing: Failing, now: int
) -> None:
    """The engine gave the job up, so nobody has written the end of its egress; the files stay where they are."""
    end = failed(failing, now)
    async with database.begin() as tx:
        await rewrite(
            tx,
            job.spec["egressId"],
            lambda egress: concluded(egress, end, egress.results, now),
            recording_after,
            watchers=watchers,
            now=now,
        )
        await tx.commit()
