"""Which workers are dead, judged by one monotonic clock: theirs and the database's are never compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.domain.job import RunningJob
from server.ids import JobId


@dataclass(slots=True)
class _Sighting:
    job: RunningJob
    since: float


class LossWatch:
    """Looks at all running jobs at a pace; a beat that stood still for a whole lease means a lost worker.

    `lease_sec` must cover several beats of an owner. `max_gap_sec`: looks further apart than this prove nothing,
    since the owner may have been cut off together with us (database down, machine asleep), so the count starts anew.
    """

    def __init__(
        self,
        *,
        lease_sec: float,
        max_gap_sec: float,
        is_gone: Callable[[RunningJob], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._lease_sec = lease_sec
        self._max_gap_sec = max_gap_sec
        self._is_gone = is_gone
        self._monotonic = monotonic
        self._sightings: dict[JobId, _Sighting] = {}
        self._lost: dict[JobId, RunningJob] = {}
        self._looked_at = float("-inf")

    def observe(self, running: Iterable[RunningJob]) -> None:
        """One look; `running` is everything that runs now."""
        now = self._monotonic()
        known = self._sightings if now - self._looked_at <= self._max_gap_sec else {}
        self._looked_at = now
        self._sightings = {}
        for job in running:
            before = known.get(job.id)
            moved = before is None or (before.job.epoch, before.job.beat) != (job.epoch, job.beat)
            self._sightings[job.id] = _Sighting(job, now) if before is None or moved else before
        self._lost = {
            seen.job.id: seen.job
            for seen in self._sightings.values()
            if now - seen.since >= self._lease_sec or self._is_gone(seen.job)
        }

    def lost(self, kind: str) -> RunningJob | None:
        """The lost job of that kind which was seen first."""
        return next((job for job in self._lost.values() if job.kind == kind), None)

    def settled(self, job: RunningJob) -> None:
        """It was taken over, or has moved on after all."""
        self._lost.pop(job.id, None)
