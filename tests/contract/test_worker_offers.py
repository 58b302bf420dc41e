"""What workers offer to carry, and how an engine weighs jobs, on both databases."""

from __future__ import annotations

from adapters.db.unit_of_work import SqlDatabase
from tests.conftest import Eventually


async def test_offers_add_up_and_are_forgotten(database: SqlDatabase, eventually: Eventually) -> None:
    async with database.begin() as tx:
        assert await tx.workers.offered("egress", within_sec=60) is None
        await tx.workers.offer("one", "egress", 1.8)
        await tx.workers.offer("two", "egress", 3.8)
        await tx.workers.offer("two", "egress", 2.0)
        await tx.workers.offer("two", "other", 9.0)
        await tx.commit()
    async with database.read() as tx:
        assert await tx.workers.offered("egress", within_sec=60) == 3.8

    async def stale() -> bool:
        async with database.read() as tx:
            return await tx.workers.offered("egress", within_sec=0.001) is None

    await eventually(stale)
    async with database.begin() as tx:
        await tx.workers.withdraw("two")
        await tx.commit()
    async with database.read() as tx:
        assert await tx.workers.offered("egress", within_sec=60) == 1.8
        assert await tx.workers.offered("other", within_sec=60) is None
