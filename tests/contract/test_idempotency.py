"""Stored answers of `Idempotency-Key`s, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from adapters.db.unit_of_work import SqlDatabase
from server.ports.unit_of_work import StoredReply
from tests.conftest import OpenDatabase
from tests.contract.rows import NOW, SECOND


async def begin(
    db: SqlDatabase,
    key: str = "key",
    *,
    project: str = "p",
    method: str = "m",
    body: str = "f1",
    at: datetime = NOW,
) -> StoredReply | None:
    async with db.begin() as tx:
        stored = await tx.idempotency.begin(project, key, method, body, at)
        await tx.commit()
    return stored


async def finish(db: SqlDatabase, reply: bytes) -> None:
    async with db.begin() as tx:
        await tx.idempotency.finish("p", "key", "m", reply)
        await tx.commit()


async def test_first_runs_second_sees_it_running_then_its_answer(database: SqlDatabase) -> None:
    assert await begin(database) is None
    assert await begin(database) == StoredReply("f1", None)
    assert await begin(database, body="f2") == StoredReply("f1", None)
    await finish(database, b"\0reply\xff")
    assert await begin(database, body="f2") == StoredReply("f1", b"\0reply\xff")


async def test_keys_belong_to_a_project_and_a_method(database: SqlDatabase) -> None:
    assert await begin(database) is None
    assert await begin(database, project="other") is None
    assert await begin(database, method="other") is None
    assert await begin(database, key="other") is None


async def test_an_abandoned_key_is_free_a_finished_one_is_not(database: SqlDatabase) -> None:
    async def abandon() -> None:
        async with database.begin() as tx:
            await tx.idempotency.abandon("p", "key", "m")
            await tx.commit()

    await begin(database)
    await abandon()
    assert await begin(database, body="f2") is None
    await finish(database, b"r")
    await abandon()
    assert await begin(database) == StoredReply("f2", b"r")


async def test_answers_are_kept_24_hours(database: SqlDatabase) -> None:
    await begin(database)
    await finish(database, b"r")
    day = timedelta(hours=24)
    assert await begin(database, at=NOW + day - SECOND) == StoredReply("f1", b"r")
    assert await begin(database, body="f2", at=NOW + day) is None
    assert await begin(database, at=NOW + day) == StoredReply("f2", None)


async def test_a_call_that_died_frees_its_key_after_five_minutes(database: SqlDatabase) -> None:
    await begin(database)
    patience = timedelta(minutes=5)
    assert await begin(database, at=NOW + patience - SECOND) == StoredReply("f1", None)
    assert await begin(database, at=NOW + patience) is None


async def test_of_concurrent_calls_one_runs(database: SqlDatabase, open_again: OpenDatabase) -> None:
    second = await open_again()
    results = await asyncio.gather(*(begin(db) for db in (database, second) for _ in range(5)))
    assert results.count(None) == 1
    assert results.count(StoredReply("f1", None)) == 9


async def test_purge(database: SqlDatabase) -> None:
    await begin(database)
    await begin(database, key="new", at=NOW + SECOND)
    async with database.begin() as tx:
        assert await tx.idempotency.purge(before=NOW + SECOND) == 1
        await tx.commit()
    assert await begin(database, key="new", at=NOW + SECOND) == StoredReply("f1", None)
    assert await begin(database) is None
