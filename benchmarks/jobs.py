"""Measure the job engine: submit → PROCESSING on an idle worker, jobs per second, and what an idle worker costs.

Run as `python -m benchmarks.jobs [--database URL …]`; a fresh SQLite file by default. Prints one row per database and
place of the worker: in the submitting process (embedded) or in one of its own (production).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.changes import change_feed
from adapters.db.unit_of_work import SqlDatabase, open_database
from server.clock import SystemClock
from server.domain.job import Job, JobStatus, NewJob
from server.domain.project import Project
from server.domain.webhook import NewEvent
from server.ids import ProjectId, new_job_id, new_project_id
from server.jobs.engine import EngineOptions, LeaseJobEngine
from server.ports.jobs import JobRun
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.recorder import OutboxRecorder

KIND = "conversion"
SUBMISSIONS = 60
BACKLOG = 200
IDLE_SEC = 15.0


class NothingToDo:
    """Ends each job at once."""

    kind = KIND

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        return {}

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        return

    async def on_settled(self, job: Job) -> None:
        return

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()


@dataclass(frozen=True, slots=True)
class Row:
    database: str
    worker: str
    p50_ms: float
    p95_ms: float
    jobs_per_sec: float
    idle_cpu_percent: float
    rss_mib: float

    def __str__(self) -> str:
        return (
            f"| {self.database} | {self.worker} | {self.p50_ms:.0f} ms | {self.p95_ms:.0f} ms "
            f"| {self.jobs_per_sec:.0f} | {self.idle_cpu_percent:.2f} % | {self.rss_mib:.0f} MiB |"
        )


def engine_on(database: SqlDatabase, url: str) -> LeaseJobEngine:
    options = EngineOptions(concurrency={KIND: 4})
    return LeaseJobEngine(database, OutboxRecorder(lambda: None), SystemClock(), change_feed(url), options)


async def measure(url: str, keys: str, *, own_process: bool) -> Row:
    database = await open_database(url, AesGcmSecretBox.parse(keys))
    engine = engine_on(database, url)
    project = new_project_id()
    async with database.begin() as tx:
        await tx.projects.add(Project(project, "Benchmark", datetime.now(UTC)))
        await tx.commit()
    if own_process:
        here, there = multiprocessing.get_context("spawn").Pipe()
        worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(url, keys, there))
        worker.start()
        idle_cpu, rss = await asyncio.to_thread(here.recv)
    else:
        await engine.start_worker([NothingToDo()])
        idle_cpu, rss = await _idle()
    try:
        latencies = [await _pick_up(database, engine, project) for _ in range(SUBMISSIONS)]
        rate = await _backlog(database, engine, project)
    finally:
        if own_process:
            here.send("end")
            await asyncio.to_thread(worker.join)
        await engine.drain(10)
        await database.close()
    cuts = statistics.quantiles(latencies, n=20)
    place = "own process" if own_process else "same process"
    return Row(database.dialect, place, statistics.median(latencies), cuts[18], rate, idle_cpu, rss)


def _worker(url: str, keys: str, line: Connection) -> None:
    async def work() -> None:
        database = await open_database(url, AesGcmSecretBox.parse(keys), migrated=True)
        engine = engine_on(database, url)
        await engine.start_worker([NothingToDo()])
        line.send(await _idle())
        await asyncio.to_thread(line.recv)
        await engine.drain(10)
        await database.close()

    asyncio.run(work())


async def _idle() -> tuple[float, float]:
    """Percent of a core over `IDLE_SEC`, and resident MiB."""
    await asyncio.sleep(1.0)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_SEC)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 100 * share, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _submit(database: SqlDatabase, engine: LeaseJobEngine, project: ProjectId) -> Job:
    async with database.begin() as tx:
        job = await engine.submit(tx, NewJob(new_job_id(), project, KIND, {}))
        await tx.commit()
    return job


async def _pick_up(database: SqlDatabase, engine: LeaseJobEngine, project: ProjectId) -> float:
    """Milliseconds from the commit of a submission to `startedAt`, at a random moment of the worker's idleness."""
    await asyncio.sleep(random.uniform(0.2, 0.5))
    job = await _submit(database, engine, project)
    committed = time.time()
    while True:
        async with database.read() as tx:
            now = await tx.jobs.get(project, job.id)
        if now is not None and now.started_at is not None and now.status is JobStatus.COMPLETED:
            return (now.started_at.timestamp() - committed) * 1000
        await asyncio.sleep(0.02)


async def _backlog(database: SqlDatabase, engine: LeaseJobEngine, project: ProjectId) -> float:
    """Jobs per second from the first submission of many to the last completion."""
    began = time.monotonic()
    for _ in range(BACKLOG):
        await _submit(database, engine, project)
    while True:
        async with database.read() as tx:
            page = await tx.jobs.list(project, kind=KIND, status=JobStatus.COMPLETED, page=1, size=1)
        if page.total == SUBMISSIONS + BACKLOG:
            return BACKLOG / (time.monotonic() - began)
        await asyncio.sleep(0.02)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument(
        "--database", action="append", metavar="URL", help="an empty database; may be repeated"
    )
    given = parser.parse_args(argv)
    keys = new_key_text()
    sys.stdout.write(
        "| Database | Worker | submit → PROCESSING p50 | p95 | jobs/s | idle CPU | RSS |\n|---|---|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for url in given.database or [f"sqlite:///{folder}/jobs.db"]:
            for own_process in (False, True):
                row = asyncio.run(measure(url, keys, own_process=own_process))
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
