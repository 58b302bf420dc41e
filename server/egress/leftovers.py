"""What captures and deliveries left on disk because their worker died after the end was stored."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from server.domain.job import JobStatus
from server.egress.delivery import KEPT
from server.egress.handler import delivery_job_id
from server.egress.journal import Journal
from server.egress.uploads import has_undelivered
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)


class EgressSweep:
    """Removes folders of egresses that have ended. `kind` is the one of this host's deliveries.

    What was never delivered from here stays: it may be all that there is of a recording.
    """

    def __init__(self, database: Database, folder: Path, kind: str) -> None:
        self._database = database
        self._folder = folder
        self._kind = kind

    async def run(self) -> int:
        """How many folders were removed."""
        removed = 0
        for folder in await asyncio.to_thread(_folders, self._folder):
            if await self._is_done(folder):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                removed += 1
        return removed

    async def _is_done(self, folder: Path) -> bool:
        async with self._database.read() as tx:
            egress = await tx.egresses.get(None, folder.name)
            delivery = await tx.jobs.get(None, delivery_job_id(folder.name))
        if egress is None or not egress.status.is_final:
            return False
        if delivery is not None and delivery.kind == self._kind:
            if not delivery.status.is_final:
                return False
            kept = delivery.status is not JobStatus.COMPLETED or bool(delivery.result.get(KEPT))
        else:
            # There is none, or one of another host, whose files are others.
            journal = await Journal.open(folder)
            kept = await asyncio.to_thread(has_undelivered, journal, egress.plan.outputs)
        if kept:
            _log.warning("egress %s: what was recorded of it here was never delivered", folder.name)
        return not kept


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
