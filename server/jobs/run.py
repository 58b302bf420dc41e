"""One attempt at one job: fenced writes that outlast a restart of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from server.domain.job import Job, Progress
from server.domain.webhook import NewEvent
from server.errors import Code, ServiceError
from server.ports.jobs import EventRecorder, OwnershipLost
from server.ports.unit_of_work import Database, UnitOfWork

_FIRST_PAUSE_SEC = 0.1
_MAX_PAUSE_SEC = 3.0


class Run:
    """Implements `JobRun`."""

    def __init__(self, job: Job, database: Database, recorder: EventRecorder) -> None:
        self._job = job
        self._database = database
        self._recorder = recorder
        self._stop = asyncio.Event()
        self._lost = False

    @property
    def job(self) -> Job:
        """As it was claimed."""
        return self._job

    @property
    def stop(self) -> asyncio.Event:
        return self._stop

    @property
    def lost(self) -> bool:
        return self._lost

    def lose(self) -> None:
        """Another worker has the job, or it has ended: no write is tried any more."""
        self._lost = True
        self._stop.set()

    async def secrets(self) -> Mapping[str, Any]:
        async with self._database.read() as tx:
            return await tx.jobs.secrets(self._job.id)

    async def save(
        self,
        *,
        progress: Progress | None = None,
        result: Mapping[str, Any] | None = None,
        playable_at: datetime | None = None,
        events: Sequence[NewEvent] = (),
    ) -> None:
        async def write(tx: UnitOfWork) -> bool:
            kept = await tx.jobs.update(
                self._job.id, epoch=self._job.epoch, progress=progress, result=result, playable_at=playable_at
            )
            for event in events if kept else ():
                await self._recorder.record(tx, event)
            return kept

        await self.write(write)

    async def transact(self, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        """Runs `work` in one transaction and commits it, if the job is still ours; raises OwnershipLost otherwise."""

        async def write(tx: UnitOfWork) -> bool:
            if not await tx.jobs.update(self._job.id, epoch=self._job.epoch):
                return False
            await work(tx)
            return True

        await self.write(write)

    async def write(self, work: Callable[[UnitOfWork], Awaitable[bool]]) -> None:
        """Runs `work` in one transaction and commits if it returns True, else raises OwnershipLost.

        Waits for a database that is away, for as long as the job is ours and need not stop.
        """
        pause = _FIRST_PAUSE_SEC
        while True:
            if self._lost:
                raise OwnershipLost
            try:
                if await self._write_once(work):
                    return
                self.lose()
                continue
            except ServiceError as error:
                if error.code is not Code.UNAVAILABLE or self._stop.is_set():
                    raise
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            pause = min(pause * 2, _MAX_PAUSE_SEC)

    async def _write_once(self, work: Callable[[UnitOfWork], Awaitable[bool]]) -> bool:
        async with self._database.begin() as tx:
            kept = await work(tx)
            if kept:
                await tx.commit()
            return kept
