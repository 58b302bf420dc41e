"""Notices that jobs were announced in any process, without asking the tables."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.db.job_queue import CHANNEL
from adapters.db.postgres import CONNECT_TIMEOUT_SEC
from adapters.db.url import DatabaseUrl
from server.ports.jobs import ChangeFeed

if TYPE_CHECKING:
    from sqlalchemy import URL

_log = logging.getLogger(__name__)

_PAUSE_AFTER_FAULT_SEC = 1.0


def change_feed(url: str) -> ChangeFeed:
    """For the database behind `url`, in the forms of `DatabaseUrl.parse`."""
    target = DatabaseUrl.parse(url)
    return SqliteChanges(target.path) if target.path else PostgresChanges(target.sqlalchemy)


class SqliteChanges:
    """Implements `ChangeFeed`: `data_version` moves with every commit of another connection, here or elsewhere.

    Reading it touches the write-ahead log's shared memory only and waits for no lock, so it is done in the loop.
    """

    def __init__(self, path: Path, *, interval_sec: float = 0.1) -> None:
        self._path = path
        self._interval_sec = interval_sec
        self._task: asyncio.Task[None] | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Calls `wake` after each change."""
        self._task = asyncio.create_task(self._watch(wake), name="database-changes")

    async def stop(self) -> None:
        await _cancel(self._task)

    async def _watch(self, wake: Callable[[], None]) -> None:
        while True:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            try:
                await self._compare(connection, wake)
            except sqlite3.Error as error:
                _log.warning("changes of the database cannot be seen: %s", error)
                await asyncio.sleep(_PAUSE_AFTER_FAULT_SEC)
            finally:
                connection.close()

    async def _compare(self, connection: sqlite3.Connection, wake: Callable[[], None]) -> None:
        seen: int | None = None
        while True:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version != seen:
                seen = version
                wake()
            await asyncio.sleep(self._interval_sec)


class PostgresChanges:
    """Implements `ChangeFeed`: one connection that listens, made again whenever it is lost."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._task: asyncio.Task[None] | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Calls `wake` after each change."""
        self._task = asyncio.create_task(self._watch(wake), name="database-changes")

    async def stop(self) -> None:
        await _cancel(self._task)

    async def _watch(self, wake: Callable[[], None]) -> None:
        import psycopg

        while True:
            try:
                await self._listen(wake)
            except psycopg.Error as error:
                _log.warning("changes of the database cannot be seen: %s", type(error).__name__)
            await asyncio.sleep(_PAUSE_AFTER_FAULT_SEC)

    async def _listen(self, wake: Callable[[], None]) -> None:
        import psycopg

        # Keepalives: a server that vanishes without a word would leave the connection listening for ever.
        address = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(
            address,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SEC,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        ) as connection:
            await connection.execute(f'LISTEN "{CHANNEL}"')
            # Whatever was announced while nobody listened.
            wake()
            async for _ in connection.notifies():
                wake()


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is None:
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
