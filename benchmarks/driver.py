"""One point read on SQLite: SQLAlchemy Core on threads of ours against its asyncio engine with aiosqlite."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import create_async_engine

from adapters.db.sqlite import SqliteBackend
from adapters.db.tables import projects
from benchmarks.results import Row, Section, ratio_of, spread
from benchmarks.servers import PROJECT
from server.app import open_backend
from server.settings import load_settings

ROUNDS = 7
READS = 2000
AT_ONCE = 16
_STATEMENT = select(projects).where(projects.c.id == bindparam("p_id"))
_PARAMETERS = {"p_id": PROJECT}

Read = Callable[[], Awaitable[object]]


def run(*, quick: bool) -> Section:
    rounds, reads = (3, 200) if quick else (ROUNDS, READS)
    with (
        tempfile.TemporaryDirectory(prefix="bax-bench-") as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rows = runner.run(_measure(Path(name), rounds, reads))
    note = (
        f"The same prepared statement on the same file, WAL and page cache, in an autocommitting connection; {rounds} turns "
        f"of {reads} reads each. This is why the server does not use aiosqlite (docs/adr/0010-sqlite-on-threads.md)."
    )
    return Section(rows, [note])


async def _measure(folder: Path, rounds: int, reads: int) -> list[Row]:
    settings = load_settings(data_dir=folder, bootstrap_project_id=PROJECT)
    async with open_backend(settings, public_url="http://127.0.0.1", with_worker=False):
        pass
    path = folder / "baxcloud.db"
    ours = SqliteBackend(path)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", isolation_level="AUTOCOMMIT")

    async def on_threads() -> object:
        return await ours.reads.run(lambda connection: connection.execute(_STATEMENT, _PARAMETERS).first())

    async def on_aiosqlite() -> object:
        async with engine.connect() as connection:
            return (await connection.execute(_STATEMENT, _PARAMETERS)).first()

    assert await on_threads() == await on_aiosqlite() is not None
    rows = []
    for at_once in (1, AT_ONCE):
        sides: dict[Read, list[float]] = {on_threads: [], on_aiosqlite: []}
        for _ in range(rounds):
            for read, micros in sides.items():
                micros.append(await _micros(read, reads, at_once))
        mine, theirs = sides.values()
        rows.append(
            Row(
                f"point read, {at_once} at a time",
                spread(mine, "µs", 0),
                spread(theirs, "µs", 0),
                f"{ratio_of(mine, theirs):.2f}×",
            )
        )
    await ours.close()
    await engine.dispose()
    return rows


async def _micros(read: Read, reads: int, at_once: int) -> float:
    """Of wall time per read."""

    async def several() -> None:
        for _ in range(reads // at_once):
            await read()

    began = time.perf_counter()
    await asyncio.gather(*(several() for _ in range(at_once)))
    return (time.perf_counter() - began) / (reads // at_once * at_once) * 1e6
