"""The job engine: submit → PROCESSING on an idle worker, jobs per second, and what an idle worker costs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.changes import change_feed
from adapters.db.unit_of_work import SqlDatabase, open_database
from benchmarks.results import Row, Section
from server.clock import SystemClock
from server.domain.job import Job, JobStatus, NewJob
from server.domain.project import Project
from server.domain.webhook import NewEvent
from server.ids import ProjectId, new_job_id, new_project_id
from server.jobs.engine import EngineOptions, LeaseJobEngine
from server.ports.jobs import JobRun
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.recorder import OutboxRecorder
from tests.servers.postgres import postgres_server

KIND = "conversion"
SUBMISSIONS = 200
BACKLOG = 200
IDLE_SEC = 15.0
TARGET_P95_MS = 300.0
_BETWEEN_SEC = (0.05, 0.35)


def run(*, quick: bool) -> Section:
    effort = Effort(20, 20, 2.0) if quick else Effort(SUBMISSIONS, BACKLOG, IDLE_SEC)
    keys = new_key_text()
    rows: list[Row] = []
    notes = [
        (
            f"{effort.submissions} submissions to one worker that has nothing else to do, each at a random moment of its "
            "idleness; from the commit of the submission to `startedAt`. The worker is in the submitting process as with "
            "`bax serve`, or in one of its own as with `--role worker`."
        ),
        (
            f"jobs/s: from the first of {effort.backlog} submissions to the last completion, four at a time, handlers that do "
            f"nothing. Idle: the worker's process over {effort.idle_sec:.0f} s."
        ),
    ]
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as folder, ExitStack() as stack:
        urls = [(f"sqlite:///{folder}/{place}.db", own) for place, own in (("same", False), ("own", True))]
        try:
            server = stack.enter_context(postgres_server())
        except pytest.skip.Exception as reason:
            notes.append(f"Not on PostgreSQL: {reason}.")
        else:
            urls += [(stack.enter_context(server.database()), own) for own in (False, True)]
        for url, own_process in urls:
            rows += asyncio.run(measure(url, keys, effort, own_process=own_process)).rows()
    return Section(rows, notes)


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
class Effort:
    """How much is done: submissions one by one, submissions at once, and seconds of watching an idle worker."""

    submissions: int
    backlog: int
    idle_sec: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What one database and place of the worker gave."""

    where: str
    p50_ms: float
    p95_ms: float
    jobs_per_sec: float
    idle_cpu_percent: float
    rss_mib: float

    def rows(self) -> list[Row]:
        idle = f"{self.idle_cpu_percent:.2f} % of a core, {self.rss_mib:.0f} MiB"
        return [
            Row(
                f"submit → PROCESSING, p95, {self.where}",
                f"{self.p95_ms:.0f} ms (median {self.p50_ms:.0f})",
                target=f"≤ {TARGET_P95_MS:.0f} ms",
                met=self.p95_ms <= TARGET_P95_MS,
            ),
            Row(f"jobs/s; idle worker, {self.where}", f"{self.jobs_per_sec:.0f}; {idle}"),
        ]


def engine_on(database: SqlDatabase, url: str) -> LeaseJobEngine:
    options = EngineOptions(concurrency={KIND: 4})
    return LeaseJobEngine(database, OutboxRecorder(lambda: None), SystemClock(), change_feed(url), options)


async def measure(url: str, keys: str, effort: Effort, *, own_process: bool) -> Figures:
    database = await open_database(url, AesGcmSecretBox.parse(keys))
    engine = engine_on(database, url)
    project = new_project_id()
    async with database.begin() as tx:
        await tx.projects.add(Project(project, "Benchmark", datetime.now(UTC)))
        await tx.commit()
    if own_process:
        here, there = multiprocessing.get_context("spawn").Pipe()
        worker = multiprocessing.get_context("spawn").Process(
            target=_worker, args=(url, keys, effort.idle_sec, there)
        )
        worker.start()
        idle_cpu, rss = await asyncio.to_thread(here.recv)
    else:
        await engine.start_worker([NothingToDo()])
        idle_cpu, rss = await _idle(effort.idle_sec)
    try:
        latencies = [await _pick_up(database, engine, project) for _ in range(effort.submissions)]
        rate = await _backlog(database, engine, project, effort)
    finally:
        if own_process:
            here.send("end")
            await asyncio.to_thread(worker.join)
        await engine.drain(10)
        await database.close()
    cuts = statistics.quantiles(latencies, n=20)
    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[database.dialect]
    where = f"{name}, worker in {'its own' if own_process else 'the same'} process"
    return Figures(where, statistics.median(latencies), cuts[18], rate, idle_cpu, rss)


def _worker(url: str, keys: str, idle_sec: float, line: Connection) -> None:
    async def work() -> None:
        database = await open_database(url, AesGcmSecretBox.parse(keys), migrated=True)
        engine = engine_on(database, url)
        await engine.start_worker([NothingToDo()])
        line.send(await _idle(idle_sec))
        await asyncio.to_thread(line.recv)
        await engine.drain(10)
        await database.close()

    asyncio.run(work())


async def _idle(seconds: float) -> tuple[float, float]:
    """Percent of a core, and resident MiB."""
    await asyncio.sleep(1.0)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
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
    await asyncio.sleep(random.uniform(*_BETWEEN_SEC))
    job = await _submit(database, engine, project)
    committed = time.time()
    while True:
        async with database.read() as tx:
            now = await tx.jobs.get(project, job.id)
        if now is not None and now.started_at is not None and now.status is JobStatus.COMPLETED:
            return (now.started_at.timestamp() - committed) * 1000
        await asyncio.sleep(0.02)


async def _backlog(
    database: SqlDatabase, engine: LeaseJobEngine, project: ProjectId, effort: Effort
) -> float:
    """Jobs per second from the first submission of many to the last completion."""
    began = time.monotonic()
    for _ in range(effort.backlog):
        await _submit(database, engine, project)
    while True:
        async with database.read() as tx:
            page = await tx.jobs.list(project, kind=KIND, status=JobStatus.COMPLETED, page=1, size=1)
        if page.total == effort.submissions + effort.backlog:
            return effort.backlog / (time.monotonic() - began)
        await asyncio.sleep(0.02)
