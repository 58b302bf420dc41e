"""Housekeeping of a worker: leftovers of dead attempts, unclaimed uploads, expired idempotency keys."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from server.clock import Clock
from server.ids import JobId
from server.ports.unit_of_work import IDEMPOTENCY_KEPT, Database

_logger = logging.getLogger(__name__)

INTERVAL_SEC = 3600.0
# Nothing younger is touched: an upload may still be arriving, a job's row may not be committed yet.
MIN_AGE_SEC = 3600.0


class Reapable(Protocol):
    def reap(self) -> None:
        """Removes what interrupted writes left behind; blocking."""
        ...


class Sweep(Protocol):
    async def run(self) -> int:
        """Removes what dead processes left of one kind of work; how often it did."""
        ...


class Maintenance:
    """Runs once at start and then every hour."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        objects: Reapable,
        work_folder: Path,
        upload_folder: Path,
        *,
        sweeps: Sequence[Sweep] = (),
    ) -> None:
        self._database = database
        self._clock = clock
        self._objects = objects
        self._folders = (work_folder, upload_folder)
        self._sweeps = sweeps
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="maintenance")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.tidy()
            except Exception:
                _logger.exception("housekeeping failed; it is tried again later")
            await asyncio.sleep(INTERVAL_SEC)

    async def tidy(self) -> None:
        """Removes files of jobs that have ended or never came to be, and what has expired in the database."""
        async with self._database.begin() as tx:
            await tx.idempotency.purge(before=self._clock.now() - IDEMPOTENCY_KEPT)
            await tx.commit()
        for folder in self._folders:
            for entry in await asyncio.to_thread(_old_entries, folder):
                await self._remove_unless_needed(entry)
        await asyncio.to_thread(self._objects.reap)
        for sweep in self._sweeps:
            await sweep.run()

    async def _remove_unless_needed(self, entry: Path) -> None:
        async with self._database.read() as tx:
            job = await tx.jobs.get(None, JobId(entry.name.removesuffix(".part")))
        if job is None or job.status.is_final:
            await asyncio.to_thread(_remove, entry)


def _old_entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    newest = time.time() - MIN_AGE_SEC
    old = []
    for entry in folder.iterdir():
        # Another worker may be tidying the same folder.
        with suppress(FileNotFoundError):
            if entry.stat().st_mtime < newest:
                old.append(entry)
    return old


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
