"""2.8 case 36: many processes claim from one database, are killed while they commit, and are locked out for seconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapters.db.tables import jobs
from adapters.db.unit_of_work import SqlDatabase
from tests.contract.rows import NOW, PROJECT, add_projects, new_job
from tests.soak import scaled

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
PROCESSES = 8
JOBS = 500
KILLS = scaled(100, 200)
DEADLINE_SEC = 120.0


@dataclass
class Claimers:
    """`claims` are (job, owner) as each was reported after its commit."""

    process: asyncio.subprocess.Process
    claims: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    async def until(self, wanted: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_SEC):
            while line := (await self.process.stdout.readline()).decode():
                word, *rest = line.split()
                match word:
                    case "claimed":
                        self.claims.append((rest[0], rest[1]))
                    case "failed":
                        self.failures.append(line)
                    case "ended":
                        self.statuses = rest
                if word == wanted:
                    return
        raise AssertionError(f"the claimers ended before they said {wanted}")

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.until("ended")
        assert await self.process.wait() == 0


@asynccontextmanager
async def claimers(url: str, secret_keys: str, **given: Any) -> AsyncIterator[Claimers]:
    arguments = {"database_url": url, "secret_keys": secret_keys, "processes": PROCESSES, **given}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.claim_process",
        json.dumps(arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Claimers(process)
    finally:
        await end_group(process)


async def end_group(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def owners(database: SqlDatabase) -> dict[str, tuple[str, int, int]]:
    """Owner, epoch and attempt of each job."""
    wanted = select(jobs.c.id, jobs.c.owner, jobs.c.epoch, jobs.c.attempt)
    async with database.read() as tx:
        rows = await tx.run_sync(lambda connection: connection.execute(wanted).all())
    return {row.id: (row.owner, row.epoch, row.attempt) for row in rows}


async def add_jobs(database: SqlDatabase) -> None:
    await add_projects(database)
    async with database.begin() as tx:
        for number in range(JOBS):
            await tx.jobs.add(new_job(project=PROJECT, metadata=number), NOW)
        await tx.commit()


async def check_whole(database: SqlDatabase) -> None:
    if database.dialect == "sqlite":
        async with database.read() as tx:
            found = await tx.run_sync(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar())
        assert found == "ok"


async def test_who_dies_while_committing_loses_and_doubles_no_claim(
    database: SqlDatabase, database_url: str, secret_keys: str
) -> None:
    """8 processes, 500 jobs, kill -9 again and again: what was committed stays, nothing is claimed twice."""
    await add_jobs(database)
    async with claimers(database_url, secret_keys, kills=KILLS, pause_sec=[0.0, 0.05], seed=36) as fighting:
        await fighting.until("killed")
        await fighting.end()
    stored = await owners(database)

    assert fighting.failures == []
    assert fighting.statuses == ["0"] * PROCESSES
    assert {entry[1:] for entry in stored.values()} == {(1, 1)}
    assert len(stored) == JOBS
    assert [claim for claim in fighting.claims if stored[claim[0]][0] != claim[1]] == []
    assert max(Counter(job for job, _ in fighting.claims).values()) == 1
    await check_whole(database)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_somebody_elses_write_lock_is_waited_out(
    database: SqlDatabase, database_url: str, secret_keys: str
) -> None:
    """An operator's own sqlite3 holds the file for 4 s: nobody is told that the database is locked."""
    await add_jobs(database)
    path = database_url.removeprefix("sqlite:///")
    # Its own turn among eight writers may be long in coming.
    with sqlite3.connect(path, timeout=60, isolation_level=None) as operator:
        async with claimers(database_url, secret_keys, kills=0, pause_sec=[0, 0], seed=0) as waiting:
            await waiting.until("claimed")
            operator.execute("BEGIN IMMEDIATE")
            before = await owners(database)
            await asyncio.sleep(4)
            during = await owners(database)
            operator.execute("COMMIT")
            await waiting.end()
    operator.close()
    after = await owners(database)

    assert waiting.failures == []
    assert waiting.statuses == ["0"] * PROCESSES
    assert before == during
    assert {entry[1:] for entry in after.values()} == {(1, 1)}
    await check_whole(database)
