"""Opens the database and hands out units of work: the repositories over one transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar

from sqlalchemy import Connection

from adapters.db.auto_egress import SqlAutoEgress
from adapters.db.egresses import SqlEgresses
from adapters.db.faults import DatabaseUnavailable
from adapters.db.idempotency import SqlIdempotency
from adapters.db.job_queue import SqlJobQueue
from adapters.db.jobs import SqlJobs
from adapters.db.migrate import migrate
from adapters.db.outbox import SqlOutbox
from adapters.db.postgres import PostgresBackend
from adapters.db.projects import SqlKeys, SqlProjects
from adapters.db.recordings import SqlRecordings
from adapters.db.room_egress import SqlRoomEgress
from adapters.db.rooms import SqlRooms
from adapters.db.rotation import check_canary
from adapters.db.session import Backend, Session, WriteSession
from adapters.db.sqlite import SqliteBackend
from adapters.db.url import DatabaseUrl
from adapters.db.webhooks import SqlWebhooks
from adapters.db.workers import SqlWorkers
from adapters.db.workload import SqlWorkload
from server.clock import Clock, SystemClock
from server.ports.secret_box import SecretBox

T = TypeVar("T")

RETRY_DELAYS_SEC = (0.05, 0.2, 0.5, 1.0, 2.0)


class SqlUnitOfWork:
    """Implements `UnitOfWork`."""

    def __init__(self, session: Session, box: SecretBox, clock: Clock) -> None:
        self._session = session
        self.projects = SqlProjects(session, box)
        self.keys = SqlKeys(session, box)
        self.jobs = SqlJobs(session, box, clock)
        self.queue = SqlJobQueue(session)
        self.webhooks = SqlWebhooks(session, box)
        self.outbox = SqlOutbox(session)
        self.idempotency = SqlIdempotency(session, box)
        self.rooms = SqlRooms(session)
        self.egresses = SqlEgresses(session, box)
        self.recordings = SqlRecordings(session)
        self.auto_egress = SqlAutoEgress(session, box)
        self.room_egress = SqlRoomEgress(session, box)
        self.workload = SqlWorkload(session)
        self.workers = SqlWorkers(session)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` with the transaction's SQLAlchemy connection, for adapters that bring their own SQL."""
        return await self._session.run(work)

    async def commit(self) -> None:
        raise RuntimeError("a unit of work for reading has nothing to commit")


class _WritingUnitOfWork(SqlUnitOfWork):
    def __init__(self, session: WriteSession, box: SecretBox, clock: Clock) -> None:
        super().__init__(session, box, clock)
        self._writes = session

    async def commit(self) -> None:
        await self._writes.commit()


class SqlDatabase:
    """Implements `Database`. Faults that pass are raised as DatabaseUnavailable (code `unavailable`, retry after 1 s)."""

    def __init__(self, backend: Backend, box: SecretBox, clock: Clock) -> None:
        self._backend = backend
        self._box = box
        self._clock = clock
        self._reading = SqlUnitOfWork(backend.reads, box, clock)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._backend.dialect

    @property
    def secret_box(self) -> SecretBox:
        return self._box

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlUnitOfWork]:
        """A transaction that writes. SQLite has one at a time: await nothing slow inside, and never nest them."""
        async with self._backend.write() as session:
            yield _WritingUnitOfWork(session, self._box, self._clock)

    def read(self) -> AbstractAsyncContextManager[SqlUnitOfWork]:
        """Each call inside sees the latest commit by itself; it waits for no writer and holds no connection between."""
        return nullcontext(self._reading)

    async def run(self, work: Callable[[SqlUnitOfWork], Awaitable[T]]) -> T:
        """`work` in a transaction that is committed after it, all of it again after a passing fault.

        `work` must have no effect outside the database. A connection lost during the commit is not tried again,
        because the commit may have happened.
        """
        for delay in RETRY_DELAYS_SEC:
            try:
                return await self._attempt(work)
            except DatabaseUnavailable as fault:
                if fault.in_commit or not fault.retryable:
                    raise
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
        return await self._attempt(work)

    async def _attempt(self, work: Callable[[SqlUnitOfWork], Awaitable[T]]) -> T:
        async with self.begin() as tx:
            result = await work(tx)
            await tx.commit()
        return result

    async def close(self) -> None:
        await self._backend.close()


async def open_database(
    url: str, secret_box: SecretBox, *, clock: Clock | None = None, migrated: bool = False
) -> SqlDatabase:
    """Migrates (unless `migrated`), connects and checks the secret keys.

    `url` takes the forms of `DatabaseUrl.parse`. Raise ValueError for another, SecretsUnreadable when no configured
    key opens this database's secrets.
    """
    target = DatabaseUrl.parse(url)
    if not migrated:
        await asyncio.to_thread(migrate, url)
    backend: Backend = SqliteBackend(target.path) if target.path else PostgresBackend(target.sqlalchemy)
    database = SqlDatabase(backend, secret_box, clock or SystemClock())
    try:
        await check_canary(database)
    except BaseException:
        await database.close()
        raise
    return database
