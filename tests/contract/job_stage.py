"""What the job engine's contract suite stands on: a database, worker processes, and a line to each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select

from adapters.db.changes import change_feed
from adapters.db.tables import events
from adapters.db.unit_of_work import SqlDatabase
from server.clock import SystemClock
from server.domain.job import Job, JobStatus, NewJob
from server.domain.project import Project, Usage
from server.domain.webhook import WebhookEndpoint
from server.ids import ProjectId, new_id, new_job_id
from server.jobs.engine import LeaseJobEngine
from server.webhooks.recorder import OutboxRecorder
from tests.contract.job_worker import KIND

ROOT = Path(__file__).parents[2]
PROJECT = ProjectId("cl_proj_abc123")
# Generous: these waits end with the event they wait for; what they bound is a hang.
DEADLINE_SEC = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a worker."""

    at: str
    pid: int
    job: str | None = None
    epoch: int | None = None
    attempt: int | None = None
    project: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Worker:
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def signal(self, which: signal.Signals) -> None:
        self.process.send_signal(which)
        if which is signal.SIGKILL:
            await self.process.wait()

    async def exit_status(self) -> int:
        async with asyncio.timeout(DEADLINE_SEC):
            return await self.process.wait()


class Stage:
    """Leaving the block kills every worker."""

    def __init__(self, database: SqlDatabase, url: str, secret_keys: str, log: Path) -> None:
        self.database = database
        self.engine = LeaseJobEngine(database, OutboxRecorder(lambda: None), SystemClock(), change_feed(url))
        self.said: list[Said] = []
        self._url = url
        self._secret_keys = secret_keys
        self._log = log
        self._news = asyncio.Condition()
        self._lines: dict[int, asyncio.StreamWriter] = {}
        self._workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        await self.add_project(PROJECT)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()
        for writer in self._lines.values():
            writer.close()
        self._server.close()

    # --- workers

    async def worker(
        self,
        *,
        concurrency: int = 1,
        lease_sec: float = 1.0,
        grace_sec: float = DEADLINE_SEC,
        stop_grace_sec: float = DEADLINE_SEC,
        rescue_local: bool = True,
        clock_offset_sec: float = 0.0,
    ) -> Worker:
        """A new process that takes jobs; returns once it does."""
        given = {
            "port": self._server.sockets[0].getsockname()[1],
            "database_url": self._url,
            "secret_keys": self._secret_keys,
            "concurrency": concurrency,
            "lease_sec": lease_sec,
            "grace_sec": grace_sec,
            "stop_grace_sec": stop_grace_sec,
            "rescue_local": rescue_local,
            "clock_offset_sec": clock_offset_sec,
        }
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.contract.job_worker", json.dumps(given), cwd=ROOT, stderr=log
            )
        self._workers.append(Worker(process))
        await self.hears("ready", pid=process.pid)
        return self._workers[-1]

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                values = json.loads(line)
                known = {
                    key: values.pop(key, None) for key in ("at", "pid", "job", "epoch", "attempt", "project")
                }
                async with self._news:
                    self._lines[known["pid"]] = writer
                    self.said.append(Said(**known, more=values))
                    self._news.notify_all()

    async def hears(
        self, at: str, *, job: Job | None = None, pid: int | None = None, epoch: int | None = None
    ) -> Said:
        """The first line that says so, past or to come."""

        def fits(said: Said) -> bool:
            return (
                said.at == at
                and (job is None or said.job == job.id)
                and pid in {None, said.pid}
                and epoch in {None, said.epoch}
            )

        return (await self.hears_many(1, fits))[0]

    async def hears_many(self, count: int, fits: Callable[[Said], bool]) -> list[Said]:
        """As soon as `count` such lines were said."""
        async with asyncio.timeout(DEADLINE_SEC), self._news:
            await self._news.wait_for(lambda: sum(map(fits, self.said)) >= count)
        return list(filter(fits, self.said))

    def tell(self, to: Said, do: str, **more: Any) -> None:
        order = {"job": to.job, "epoch": to.epoch, "do": do, **more}
        self._lines[to.pid].write(json.dumps(order).encode() + b"\n")

    def count(self, at: str, job: Job) -> int:
        return sum(said.at == at and said.job == job.id for said in self.said)

    # --- jobs

    async def submit(
        self,
        project: ProjectId = PROJECT,
        *,
        delay_sec: float = 0.0,
        max_attempts: int = 3,
        secrets: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> Job:
        job = NewJob(new_job_id(), project, KIND, spec, secrets=secrets, max_attempts=max_attempts)
        async with self.database.begin() as tx:
            added = await self.engine.submit(tx, job, delay_sec=delay_sec)
            await tx.commit()
        return added

    async def cancel(self, job: Job) -> bool:
        async with self.database.begin() as tx:
            done = await self.engine.cancel(tx, job.project_id, job.id)
            await tx.commit()
        return done

    async def job(self, job: Job) -> Job:
        async with self.database.read() as tx:
            now = await tx.jobs.get(None, job.id)
        assert now is not None
        return now

    async def becomes(self, job: Job, status: JobStatus) -> Job:
        """Waits for the row; fails at once if it ends in another state."""
        async with asyncio.timeout(DEADLINE_SEC):
            while (now := await self.job(job)).status is not status:
                assert not now.status.is_final, f"{now.status} {now.error_code} {now.error_message}"
                await asyncio.sleep(0.02)
        return now

    async def add_project(self, project: ProjectId) -> None:
        """With an endpoint that wants every event."""
        now = datetime.now(UTC)
        async with self.database.begin() as tx:
            await tx.projects.add(Project(project, "Test", now))
            await tx.webhooks.add(
                WebhookEndpoint(new_id("wh"), project, "https://example.com/", ("*",), (), True, now, now)
            )
            await tx.commit()

    async def events(self, job: Job) -> list[str]:
        """Names of the recorded events of this job, sorted."""
        wanted = select(events.c.name).where(events.c.subject == job.id).order_by(events.c.name)
        async with self.database.read() as tx:
            return list(await tx.run_sync(lambda connection: connection.execute(wanted).scalars().all()))

    async def usage(self, project: ProjectId = PROJECT) -> Usage:
        async with self.database.read() as tx:
            return await tx.projects.usage(project)
