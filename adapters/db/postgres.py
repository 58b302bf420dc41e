"""PostgreSQL through psycopg's async connections; a restarted server is noticed and survived without a ping per call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from adapters.db.faults import translate

T = TypeVar("T")

POOL_SIZE = 5
POOL_OVERFLOW = 10
POOL_TIMEOUT_SEC = 10
CONNECT_TIMEOUT_SEC = 5
STATEMENT_TIMEOUT_MS = 30_000
IDLE_TRANSACTION_TIMEOUT_MS = 60_000


def postgres_engine(url: URL, *, reading: bool) -> AsyncEngine:
    """`reading`: autocommit and read-only, so that a look-up is one round trip and holds nothing."""
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={IDLE_TRANSACTION_TIMEOUT_MS}"
    )
    if reading:
        options += " -c default_transaction_read_only=on"
    return create_async_engine(
        url,
        isolation_level="AUTOCOMMIT" if reading else "READ COMMITTED",
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_SEC,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SEC,
            "options": f"{url.query.get('options', '')} {options}".strip(),
        },
    )


class PostgresBackend:
    """Implements `Backend`."""

    dialect = "postgresql"

    def __init__(self, url: URL) -> None:
        self._reading = postgres_engine(url, reading=True)
        self._writing = postgres_engine(url, reading=False)
        self.reads = _Reads(self._reading)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[_Transaction]:
        transaction = _Transaction(self._writing)
        try:
            yield transaction
        finally:
            await transaction.close()

    async def close(self) -> None:
        await self._reading.dispose()
        await self._writing.dispose()


class _Reads:
    """A `Session` that holds a connection for one piece of work only."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, work: Callable[[Connection], T]) -> T:
        try:
            try:
                return await self._once(work)
            except DBAPIError as error:
                # The pool kept a connection that the server has closed since; SQLAlchemy has now dropped all of
                # that age, so one more try meets a fresh one or a server that is really down.
                if not error.connection_invalidated:
                    raise
                return await self._once(work)
        except Exception as error:
            if fault := translate(error):
                raise fault from error
            raise

    async def _once(self, work: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)


class _Transaction:
    """A `WriteSession`; takes its connection with the first statement."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._done = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        if self._done:
            raise RuntimeError("the unit of work has ended")
        try:
            if self._connection is not None:
                return await self._connection.run_sync(work)
            return await self._first(work)
        except Exception as error:
            if fault := translate(error):
                raise fault from error
            raise

    async def _first(self, work: Callable[[Connection], T]) -> T:
        """A lost connection has nothing of this transaction on it yet, so a fresh one may start it again."""
        self._connection = await self._engine.connect()
        try:
            return await self._connection.run_sync(work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        await self._connection.close()
        self._connection = None
        self._connection = await self._engine.connect()
        return await self._connection.run_sync(work)

    async def commit(self) -> None:
        self._done = True
        if self._connection is None:
            return
        try:
            await self._connection.commit()
        except Exception as error:
            if fault := translate(error, in_commit=True):
                raise fault from error
            raise

    async def close(self) -> None:
        self._done = True
        if self._connection is not None:
            await self._connection.close()
