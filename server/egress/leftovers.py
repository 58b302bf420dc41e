"""What captures and deliveries left on disk because their worker died after the end was stored."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from server.domain.job import Job, JobStatus
from server.egress.delivery import KEPT
from server.egress.handler import delivery_job_id
from server.egress.journal import Footage, Journal
from server.egress.segments import SEGMENT
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
        if delivery is not None and self._delivered(delivery):
            return True
        footage, outputs = (await Journal.open(folder)).footage, egress.plan.outputs
        if (footage.has_media and outputs.files) or _has_unstored(footage, len(outputs.segments)):
            _log.warning("egress %s: what was recorded of it here was never delivered", folder.name)
            return False
        return delivery is None

    def _delivered(self, delivery: Job) -> bool:
        return (
            delivery.kind == self._kind
            and delivery.status is JobStatus.COMPLETED
            and not delivery.result.get(KEPT)
        )


def _has_unstored(footage: Footage, outputs: int) -> bool:
    """Whether there is a segment that one of so many outputs has not got."""
    return any(
        (SEGMENT, output, segment.number) not in footage.stored
        for segment in footage.segments
        for output in range(outputs)
    )


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
