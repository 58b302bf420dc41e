"""SQLite: one writing connection per process, a few reading ones, each in a thread of its own.

The synchronous driver on our own threads takes one thread switch per piece of work where aiosqlite takes five: a point
read costs a quarter (about 120 against 560 µs on a busy two-core machine).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from adapters.db.faults import DatabaseUnavailable, is_spent_connection, translate

_log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 3
BUSY_TIMEOUT_MS = 10_000
WRITE_LOCK_TIMEOUT_SEC = 30.0


def sqlite_engine(path: Path, *, begin: str | None, foreign_keys: bool = True) -> Engine:
    """An engine whose connections are set up for several processes on one file.

    `begin` is the statement that opens a transaction; None means autocommit and read-only. Migrations turn
    `foreign_keys` off, because SQLite alters a table by making it anew.
    """
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": BUSY_TIMEOUT_MS / 1000,
            "cached_statements": 256,
        },
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        _use_wal(connection)
        # FULL: in WAL mode NORMAL loses the last commits on a power cut, and an outbox must not.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        connection.execute("PRAGMA temp_store=MEMORY")
        if begin is None:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def open_transaction(connection: Connection) -> None:
        if begin is not None:
            connection.exec_driver_sql(begin)

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """The switch to WAL needs the file alone and does not wait for it, so processes that start together try again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class SqliteBackend:
    """Implements `Backend`. Other processes may use the same file at the same time."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.reads = _Readers(sqlite_engine(path, begin=None))
        self._writer = _Writer(sqlite_engine(path, begin="BEGIN IMMEDIATE"))

    @asynccontextmanager
    async def write(self) -> AsyncIterator[_Transaction]:
        """Waits for its turn in this process; the first statement takes the file's write lock."""
        writer = self._writer
        try:
            async with asyncio.timeout(WRITE_LOCK_TIMEOUT_SEC):
                await writer.turn.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("the database is busy", retryable=False) from None
        transaction = _Transaction(writer)
        try:
            yield transaction
        finally:
            transaction.done = True
            if transaction.committed:
                writer.turn.release()
            else:
                # Not awaited when this task is being cancelled: the writer's only thread works in order, so whoever
                # gets the turn next starts after the roll-back.
                rollback = writer.submit(writer.rollback)
                writer.turn.release()
                await asyncio.shield(rollback)

    async def close(self) -> None:
        await self.reads.close()
        await self._writer.close()


class _Readers:
    """A `Session` of autocommitted reads: each statement sees the latest commit; none waits for a writer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._local = threading.local()
        self._opened: set[Connection] = set()
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-read")

    async def run(self, work: Callable[[Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)
        except Exception as error:
            if fault := translate(error):
                raise fault from error
            raise

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._read(work)
        except DBAPIError as error:
            if not is_spent_connection(error):
                raise
            _log.warning("a connection that reads is replaced: %s", error.orig)
        self._drop_connection()
        return self._read(work)

    def _drop_connection(self) -> None:
        spent: Connection | None = getattr(self._local, "connection", None)
        if spent is not None:
            self._local.connection = None
            self._opened.discard(spent)
            with suppress(DBAPIError):
                spent.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._engine.connect()
            self._opened.add(connection)
        try:
            return work(connection)
        finally:
            connection.rollback()

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._opened:
            connection.close()


class _Writer:
    """The one writing connection, its thread, and the lock that hands out turns on it."""

    def __init__(self, engine: Engine) -> None:
        self.turn = asyncio.Lock()
        self._engine = engine
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-write")
        self.spent = False

    @property
    def connection(self) -> Connection:
        """Only for the writer's thread."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def commit(self) -> None:
        self.connection.commit()

    def close_connection(self) -> None:
        """The next transaction opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(DBAPIError):
                connection.close()

    def rollback(self) -> None:
        """Undoes the transaction; the next one gets a fresh connection if this one is spent."""
        if self._connection is None:
            return
        if self.spent:
            self.spent = False
            self.close_connection()
            return
        # Not only if `in_transaction()`: a commit that failed (disk full) leaves an invalid transaction, which would
        # refuse all further work, and may leave SQLite's own open.
        self._connection.rollback()
        driver = self._connection.connection.driver_connection
        if driver is not None and driver.in_transaction:
            driver.rollback()

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self.close_connection()


class _Transaction:
    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self.done = False
        self.committed = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        if self.done:
            raise RuntimeError("the unit of work has ended")
        try:
            return await self._writer.submit(lambda: work(self._writer.connection))
        except Exception as error:
            self._writer.spent = is_spent_connection(error)
            if fault := translate(error):
                raise fault from error
            raise

    async def commit(self) -> None:
        self.done = True
        try:
            await self._writer.submit(self._writer.commit)
        except Exception as error:
            self._writer.spent = is_spent_connection(error)
            if fault := translate(error, in_commit=True):
                raise fault from error
            raise
        self.committed = True
