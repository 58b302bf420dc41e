"""Removes the partial objects of conversions that ended without a result, also when whoever should have is dead."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from server.clock import Clock
from server.conversion.fenced_store import PUBLISHING
from server.conversion.published import may_have_published, remove_layout
from server.domain.conversion import spec_of
from server.domain.job import CONVERSION_KIND, Job, JobStatus
from server.errors import ServiceError
from server.ids import ProjectId
from server.ports.storage import ObjectStorage, StorageError
from server.ports.unit_of_work import Database

_logger = logging.getLogger(__name__)

# Whoever ended the job is removing them right now.
_SETTLING = timedelta(minutes=10)
# A storage that stays away this long is its owner's to tidy.
_GIVEN_UP = timedelta(days=2)
_ENDED = (JobStatus.FAILED, JobStatus.CANCELLED)
_PAGE = 100


async def remove_leftovers(job: Job, database: Database, storage: ObjectStorage) -> bool:
    """Whether nothing of `job`, which has failed or was cancelled, is left in its storage; never raises for that."""
    if not may_have_published(job.result):
        return True
    async with database.read() as tx:
        spec = spec_of(job, await tx.jobs.secrets(job.id))
    try:
        await remove_layout(await storage.open(spec.target), spec.output_formats)
    except (StorageError, ServiceError) as error:
        # Often the very storage that failed the job; the sweep tries again.
        _logger.warning("job %s: partial objects could not be removed: %s", job.id, error)
        return False
    await _forget(job, database)
    return True


async def _forget(job: Job, database: Database) -> None:
    async with database.begin() as tx:
        await tx.jobs.amend(job.id, result={PUBLISHING: False})
        await tx.commit()


class LeftoverSweep:
    """Finds conversions whose worker died, or whose storage was away, between their end and the removal."""

    def __init__(self, database: Database, storage: ObjectStorage, clock: Clock) -> None:
        self._database = database
        self._storage = storage
        self._clock = clock

    async def run(self) -> int:
        """How many jobs were tidied up after."""
        tidied = 0
        async for project_id in self._projects():
            for status in _ENDED:
                async for job in self._ended(project_id, status):
                    tidied += await self._tidy(job)
        return tidied

    async def _tidy(self, job: Job) -> bool:
        if await self._has_successor(job):
            await _forget(job, self._database)
            return False
        return await remove_leftovers(job, self._database, self._storage)

    async def _projects(self) -> AsyncIterator[ProjectId]:
        page = 1
        while True:
            async with self._database.read() as tx:
                projects, _ = await tx.projects.list(page=page, size=_PAGE)
            for project in projects:
                yield project.id
            if len(projects) < _PAGE:
                return
            page += 1

    async def _ended(self, project_id: ProjectId, status: JobStatus) -> AsyncIterator[Job]:
        now = self._clock.now()
        async for job in self._newest_first(project_id, status):
            if job.created_at < now - _GIVEN_UP:
                return
            ended_at = job.failed_at or job.updated_at or job.created_at
            if may_have_published(job.result) and ended_at <= now - _SETTLING:
                yield job

    async def _has_successor(self, job: Job) -> bool:
        """Whether a later job of the project writes to the same place in a bucket: its keys are the same."""
        if "s3" not in job.spec["storage"]:
            return False
        async for later in self._newest_first(job.project_id, None):
            if later.created_at <= job.created_at:
                return False
            if later.id != job.id and later.spec["storage"] == job.spec["storage"]:
                return True
        return False

    async def _newest_first(self, project_id: ProjectId, status: JobStatus | None) -> AsyncIterator[Job]:
        page = 1
        while True:
            async with self._database.read() as tx:
                found = await tx.jobs.list(
                    project_id, kind=CONVERSION_KIND, status=status, page=page, size=_PAGE
                )
            for job in found.items:
                yield job
            if len(found.items) < _PAGE:
                return
            page += 1
