"""Prometheus metrics of the whole installation, looked up when somebody asks: queue, outbox, disk, LiveKit."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from server.clock import Clock
from server.domain.job import JobStatus
from server.domain.workload import KindLoad, Workload
from server.errors import ServiceError
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)

# However often and by however many it is scraped, the database and the disk are looked at this often.
KEPT_SEC = 5.0
FOLDERS_KEPT_SEC = 60.0
_LOOK_TIMEOUT_SEC = 2.0
# A walk over many files must not become the server's main occupation.
_WALK_REST = 20.0

Problem = Callable[[], Awaitable[str | None]]


class StateMetrics(Collector):
    """Every process shows the same figures, so take `max` over processes, not `sum`.

    `livekit_problem` says what is wrong with LiveKit, None if nothing is. A figure that cannot be had is left out.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        data_dir: Path,
        livekit_problem: Problem,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._data_dir = data_dir
        self._livekit_problem = livekit_problem
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._refresh_at = self._walk_at = float("-inf")
        self._kinds: set[str] = set()
        self._load: Workload | None = None
        self._livekit_up = False
        self._free_bytes: int | None = None
        self._folder_bytes: dict[str, int] = {}

    async def refresh(self) -> None:
        """Looks at everything; never raises, and waits a few seconds at most for what does not answer."""
        async with self._lock:
            if self._monotonic() < self._refresh_at:
                return
            await asyncio.gather(self._look_at_database(), self._look_at_livekit(), self._look_at_disk())
            self._refresh_at = self._monotonic() + KEPT_SEC

    def collect(self) -> Iterator[Metric]:
        """What the last `refresh` saw."""
        yield _gauge("bax_database_up", "1 if the database answered.", float(self._load is not None))
        yield _gauge("bax_livekit_up", "1 if LiveKit answered.", float(self._livekit_up))
        if self._load is not None:
            yield from self._of_load(self._load)
        if self._free_bytes is not None:
            yield _gauge("bax_disk_free_bytes", "Free bytes of the data directory's disk.", self._free_bytes)
        folders = GaugeMetricFamily("bax_storage_bytes", "Bytes in the data directory.", labels=("folder",))
        for folder, size in self._folder_bytes.items():
            folders.add_metric((folder,), size)
        yield folders

    def _of_load(self, load: Workload) -> Iterator[Metric]:
        now = self._clock.now()
        jobs = GaugeMetricFamily("bax_jobs", "Jobs that have not ended.", labels=("kind", "state"))
        oldest = GaugeMetricFamily(
            "bax_jobs_oldest_pending_seconds", "Age of the oldest PENDING job.", labels=("kind",)
        )
        found = {one.kind: one for one in load.jobs}
        for kind in sorted(self._kinds):
            one = found.get(kind, KindLoad(kind, pending=0, processing=0, oldest=None))
            jobs.add_metric((kind, JobStatus.PENDING.value), one.pending)
            jobs.add_metric((kind, JobStatus.PROCESSING.value), one.processing)
            oldest.add_metric((kind,), _seconds_since(one.oldest, now))
        yield jobs
        yield oldest
        yield _gauge("bax_webhook_backlog", "Webhook deliveries still to be made.", load.deliveries)
        yield _gauge(
            "bax_webhook_overdue_seconds",
            "How late the delivery is that has been due the longest.",
            _seconds_since(load.due_since, now),
        )

    async def _look_at_database(self) -> None:
        self._load = None
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_LOOK_TIMEOUT_SEC), self._database.read() as tx:
                self._load = await tx.workload.of_all()
                # A kind that was seen once is shown with 0 from then on.
                self._kinds.update(one.kind for one in self._load.jobs)

    async def _look_at_livekit(self) -> None:
        self._livekit_up = await self._livekit_problem() is None

    async def _look_at_disk(self) -> None:
        try:
            self._free_bytes = (await asyncio.to_thread(shutil.disk_usage, self._data_dir)).free
            if self._monotonic() >= self._walk_at:
                began = self._monotonic()
                for folder in ("objects", "uploads", "work"):
                    self._folder_bytes[folder] = await asyncio.to_thread(_bytes_in, self._data_dir / folder)
                took = self._monotonic() - began
                self._walk_at = self._monotonic() + max(FOLDERS_KEPT_SEC, took * _WALK_REST)
        except OSError as error:
            _log.warning("the data directory cannot be measured: %s", error.strerror or error)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _seconds_since(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max((now - moment).total_seconds(), 0.0)


def _bytes_in(folder: Path) -> int:
    """What its files hold; files that go away meanwhile count nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118 - a tenth of the time of Path
            except FileNotFoundError:
                continue
    return total
