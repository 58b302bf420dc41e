"""A database that restarts, is contended, or is shared by several processes: clear errors, nothing lost, it heals."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.faults import DatabaseUnavailable
from adapters.db.migrate import migrate
from adapters.db.unit_of_work import SqlDatabase, SqlUnitOfWork, open_database
from adapters.db.url import DatabaseUrl, default_url
from server.domain.job import NewJob
from server.domain.project import Usage
from server.errors import Code
from tests.conftest import Eventually, OpenDatabase
from tests.contract.rows import NOW, PROJECT, add_job, add_projects, new_job
from tests.servers.postgres import PostgresServer, postgres_server


async def jobs_count(database: SqlDatabase) -> int:
    async with database.read() as tx:
        return (await tx.jobs.list(PROJECT, kind="conversion", status=None, page=1, size=1)).total


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """Not the session's, which other tests are using."""
    with postgres_server() as server:
        yield server


@pytest.fixture
async def restarting(own_server: PostgresServer) -> AsyncIterator[SqlDatabase]:
    with own_server.database() as url:
        database = await open_database(url, AesGcmSecretBox.parse(new_key_text()))
        await add_projects(database)
        yield database
        await database.close()


class TestPostgresRestarts:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
    async def test_connections_that_the_server_closed_are_replaced_unseen(
        self, restarting: SqlDatabase, own_server: PostgresServer, how: signal.Signals
    ) -> None:
        """Section 8: after a restart the very next reads and writes succeed, many at once too."""
        await asyncio.gather(*(add_job(restarting, new_job()) for _ in range(4)), jobs_count(restarting))
        own_server.stop(how)
        own_server.start()
        await asyncio.gather(*(jobs_count(restarting) for _ in range(4)))
        await asyncio.gather(*(add_job(restarting, new_job()) for _ in range(4)))
        assert await jobs_count(restarting) == 8

    async def test_while_it_is_down_callers_are_told_to_come_back(
        self, restarting: SqlDatabase, own_server: PostgresServer
    ) -> None:
        own_server.stop()
        try:
            for attempt in (jobs_count(restarting), add_job(restarting, new_job())):
                with pytest.raises(DatabaseUnavailable) as caught:
                    await attempt
                assert (caught.value.code, caught.value.retry_after_sec) == (Code.UNAVAILABLE, 1)
                assert "127.0.0.1" not in caught.value.message
        finally:
            own_server.start()
        assert await jobs_count(restarting) == 0

    async def test_a_transaction_cut_in_the_middle_is_run_again_as_a_whole(
        self, restarting: SqlDatabase, own_server: PostgresServer
    ) -> None:
        runs = 0

        async def work(tx: SqlUnitOfWork) -> None:
            nonlocal runs
            runs += 1
            await tx.projects.add_usage(PROJECT, Usage(conversion_jobs=1))
            if runs == 1:
                await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
                await asyncio.to_thread(own_server.start)
            await tx.jobs.add(new_job(), NOW)

        await restarting.run(work)
        async with restarting.read() as tx:
            assert await tx.projects.usage(PROJECT) == Usage(conversion_jobs=1)
        assert (runs, await jobs_count(restarting)) == (2, 1)

    async def test_work_goes_on_through_restarts(
        self, restarting: SqlDatabase, own_server: PostgresServer, eventually: Eventually
    ) -> None:
        """Writers that answer `unavailable` by trying again lose nothing and do nothing twice."""
        wanted = [new_job() for _ in range(60)]
        added = 0

        async def add(job: NewJob, tx: SqlUnitOfWork) -> None:
            await tx.jobs.add(job, NOW)

        async def stored(job: NewJob) -> str:
            with suppress(DatabaseUnavailable):
                async with restarting.read() as tx:
                    return "no" if await tx.jobs.get(PROJECT, job.id) is None else "yes"
            return ""

        async def submit() -> None:
            nonlocal added
            while wanted:
                job = wanted.pop()
                try:
                    await restarting.run(partial(add, job))
                except DatabaseUnavailable as fault:
                    # Lost in COMMIT: only a look tells whether it happened, so nobody runs it again blindly.
                    # Else it was away for longer than is tried by itself: certainly nothing happened.
                    if not fault.in_commit or await eventually(partial(stored, job)) == "no":
                        wanted.append(job)
                        continue
                added += 1
                await asyncio.sleep(0.02)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(submit())
            await eventually(lambda: added > 5)
            await asyncio.to_thread(own_server.stop, signal.SIGINT)
            await asyncio.to_thread(own_server.start)
        assert await jobs_count(restarting) == added == 60


class TestContention:
    async def test_deadlocked_transactions_are_run_again(
        self, database: SqlDatabase, open_again: OpenDatabase
    ) -> None:
        """40P01 on PostgreSQL; on SQLite the second simply waits its turn."""
        await add_projects(database)
        second = await open_again()
        both_hold = asyncio.Barrier(2)

        async def cross(db: SqlDatabase, *order: str) -> None:
            first_run = True

            async def work(tx: SqlUnitOfWork) -> None:
                nonlocal first_run
                await _add_one(tx, order[0])
                if first_run and db.dialect == "postgresql":
                    first_run = False
                    await both_hold.wait()
                await _add_one(tx, order[1])

            await db.run(work)

        async with asyncio.timeout(30):
            await asyncio.gather(
                cross(database, "cl_first", "cl_other"), cross(second, "cl_other", "cl_first")
            )
        async with database.read() as tx:
            assert await tx.projects.usage(PROJECT) == Usage(conversion_jobs=2)

    async def test_writers_of_two_processes_take_turns(
        self, database: SqlDatabase, open_again: OpenDatabase
    ) -> None:
        """Two open databases stand for two processes: no error, nothing lost."""
        await add_projects(database)
        second = await open_again()

        async def write(db: SqlDatabase) -> None:
            for _ in range(25):
                await add_job(db, new_job())

        async with asyncio.timeout(60):
            await asyncio.gather(*(write(db) for db in (database, second) for _ in range(2)))
        assert await jobs_count(second) == 100


async def _add_one(tx: SqlUnitOfWork, project_id: str) -> None:
    statement = text("UPDATE project_usage SET conversion_jobs = conversion_jobs + 1 WHERE project_id = :id")
    await tx.run_sync(lambda connection: connection.execute(statement, {"id": project_id}))


_WRITER = """
import asyncio, sys
from adapters.crypto import AesGcmSecretBox
from adapters.db.unit_of_work import open_database
from tests.contract.rows import NOW, add_job, new_job

async def main():
    database = await open_database(sys.argv[1], AesGcmSecretBox.parse(sys.argv[2]))
    for _ in range(40):
        await add_job(database, new_job())
    print("ready", flush=True)
    if len(sys.argv) > 3:
        async with database.begin() as tx:
            await tx.jobs.add(new_job(), NOW)
            print("inside", flush=True)
            await asyncio.Event().wait()
    await database.close()

asyncio.run(main())
"""


class TestProcesses:
    async def test_processes_share_one_database(
        self, database: SqlDatabase, database_url: str, secret_keys: str
    ) -> None:
        await add_projects(database)
        command = [sys.executable, "-c", _WRITER, database_url, secret_keys]
        processes = [await asyncio.create_subprocess_exec(*command, stdout=-1) for _ in range(3)]
        async with asyncio.timeout(60):
            assert [await process.wait() for process in processes] == [0, 0, 0]
        assert await jobs_count(database) == 120

    async def test_a_killed_writer_leaves_no_lock_and_half_a_transaction(
        self, database: SqlDatabase, database_url: str, secret_keys: str
    ) -> None:
        await add_projects(database)
        command = [sys.executable, "-c", _WRITER, database_url, secret_keys, "hang"]
        process = await asyncio.create_subprocess_exec(*command, stdout=-1)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while await process.stdout.readline() != b"inside\n":
                pass
        process.kill()
        await process.wait()
        await add_job(database, new_job())
        assert await jobs_count(database) == 41


class TestSqliteFile:
    async def test_settings_that_durability_rests_on(self, tmp_path: Path) -> None:
        """Section 2.6: WAL, FULL for what the outbox promises, foreign keys, a wait for other processes."""
        database = await open_database(
            f"sqlite:///{tmp_path / 'x.db'}", AesGcmSecretBox.parse(new_key_text())
        )
        async with database.begin() as tx:
            pragmas = await tx.run_sync(
                lambda connection: {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                }
            )
        await database.close()
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}

    async def test_a_file_locked_for_good_is_unavailable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("adapters.db.sqlite.BUSY_TIMEOUT_MS", 50)
        path = tmp_path / "x.db"
        database = await open_database(f"sqlite:///{path}", AesGcmSecretBox.parse(new_key_text()))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            await add_projects(database)
        assert await jobs_count(database) == 0
        other.execute("ROLLBACK")
        other.close()
        await add_projects(database)
        await database.close()

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    async def test_connections_whose_files_cannot_be_used_any_more_are_replaced(
        self, database: SqlDatabase, database_url: str
    ) -> None:
        """A "disk I/O error" lasts for as long as the connection: reads and transactions are run again over fresh ones."""
        await add_projects(database)
        await add_job(database, new_job())
        before = await jobs_count(database)
        broken = _break_open_files(f"{database_url.removeprefix('sqlite:///')}-wal")

        async def add(tx: SqlUnitOfWork) -> None:
            await tx.jobs.add(new_job(), NOW)

        await database.run(add)
        reads = await asyncio.gather(*(jobs_count(database) for _ in range(6)))

        assert broken >= 2
        assert (before, set(reads)) == (1, {2})


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "driver", "path"),
        [
            ("sqlite:////var/x.db", "sqlite", "/var/x.db"),
            ("sqlite+aiosqlite:///rel/x.db", "sqlite", "rel/x.db"),
            ("postgres://u:p@h/d", "postgresql+psycopg", None),
            ("postgresql://u:p@h:5433/d?sslmode=require", "postgresql+psycopg", None),
            ("postgresql+psycopg://h/d", "postgresql+psycopg", None),
        ],
    )
    def test_accepted(self, text: str, driver: str, path: str | None) -> None:
        url = DatabaseUrl.parse(text)
        assert (url.sqlalchemy.drivername, url.path) == (driver, Path(path) if path else None)
        assert ":p@" not in repr(url)

    @pytest.mark.parametrize(
        "text", ["", "x", "mysql://u:hidden@h/d", "sqlite://", "sqlite:///:memory:", "://hidden"]
    )
    def test_refused_without_repeating_it(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"database|SQLite") as caught:
            DatabaseUrl.parse(text)
        assert "hidden" not in str(caught.value)

    def test_the_default_is_a_file_in_the_data_directory(self, tmp_path: Path) -> None:
        migrate(default_url(tmp_path / "new"))
        assert (tmp_path / "new" / "baxcloud.db").exists()


def _break_open_files(name: str) -> int:
    """Whatever this process has open of the file answers with an error from now on; how many descriptors that were."""
    nothing = os.open(Path(name).parent, os.O_RDONLY)
    broken = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if str(entry.readlink()) == name:
                os.dup2(nothing, int(entry.name))
                broken += 1
    os.close(nothing)
    return broken
