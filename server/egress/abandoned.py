"""Ends egresses that nobody else will ever end: their job is over, or what was recorded is on a host that stays away."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from server.clock import Clock
from server.domain.egress import Egress, Failing
from server.domain.job import Job, JobStatus
from server.egress.events import EgressWatcher
from server.egress.handler import delivery_job_id, fail_abandoned
from server.egress.outcome import DELIVERY_BROKE, HOST_AWAY, RECORDER_FAILS
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)

# A delivery that is alive is written to every few minutes, whatever its storage does.
HOST_AWAY_AFTER = timedelta(days=3)


class AbandonedSweep:
    """Looks at everything that has not ended. Nothing is removed: a host that comes back still has its files."""

    def __init__(self, database: Database, watchers: Sequence[EgressWatcher], clock: Clock) -> None:
        self._database = database
        self._watchers = watchers
        self._clock = clock

    async def run(self) -> int:
        """How many were ended."""
        async with self._database.read() as tx:
            running = await tx.egresses.running()
        ended = 0
        for egress in running:
            ended += await self._look(egress)
        return ended

    async def _look(self, egress: Egress) -> bool:
        async with self._database.read() as tx:
            capture = await tx.jobs.get(None, egress.job_id)
            delivery = await tx.jobs.get(None, delivery_job_id(egress.id))
        if capture is None:
            return False
        now = self._clock.now()
        failing = _why(capture, delivery, now)
        if failing is None:
            return False
        _log.error("egress %s is ended, for nobody else does it: %s", egress.id, failing.message)
        nanoseconds = int(now.timestamp() * 1e9)
        await fail_abandoned(self._database, self._watchers, capture, failing, nanoseconds)
        return True


def _why(capture: Job, delivery: Job | None, now: datetime) -> Failing | None:
    """None: somebody will end it."""
    if not capture.status.is_final:
        return None
    if delivery is None:
        return RECORDER_FAILS
    if delivery.status.is_final:
        return None if delivery.status is JobStatus.COMPLETED else DELIVERY_BROKE
    seen = delivery.updated_at or delivery.created_at
    return HOST_AWAY if now - seen > HOST_AWAY_AFTER else None
