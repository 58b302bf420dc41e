"""What is left to do, as metrics show it, on SQLite and PostgreSQL."""

from __future__ import annotations

from adapters.db.unit_of_work import SqlDatabase
from server.domain.workload import KindLoad, Workload
from tests.contract.rows import (
    NOW,
    OTHER,
    SECOND,
    add_endpoints,
    add_job,
    add_projects,
    claim,
    endpoint,
    finish,
    new_job,
    outcome,
    record,
)


async def _load(database: SqlDatabase) -> Workload:
    async with database.read() as tx:
        return await tx.workload.of_all()


async def test_an_idle_installation_has_nothing_to_do(database: SqlDatabase) -> None:
    assert await _load(database) == Workload(jobs=(), deliveries=0, due_since=None)


async def test_jobs_that_have_not_ended_are_counted_by_kind_and_state(database: SqlDatabase) -> None:
    await add_projects(database)
    running, done, cancelled, waiting = new_job(), new_job(), new_job(), new_job(project=OTHER)
    for number, job in enumerate((running, done, cancelled, waiting, new_job(), new_job(kind="egress"))):
        await add_job(database, job, NOW + number * SECOND)
    async with database.begin() as tx:
        for job in (running, done):
            await tx.jobs.claim(job.id, owner="w", now=NOW)
        await tx.jobs.complete(done.id, epoch=1, result={}, now=NOW)
        await tx.jobs.cancel(cancelled.project_id, cancelled.id, NOW)
        await tx.commit()

    assert (await _load(database)).jobs == (
        KindLoad("conversion", pending=2, processing=1, oldest=NOW + 3 * SECOND),
        KindLoad("egress", pending=1, processing=0, oldest=NOW + 5 * SECOND),
    )


async def test_deliveries_still_to_be_made_are_counted(database: SqlDatabase) -> None:
    await add_projects(database)
    await add_endpoints(database, endpoint())
    await record(database, "a", "wh_1", at=NOW)
    await record(database, "b", "wh_1", at=NOW + SECOND)
    await record(database, "c", "wh_1", at=NOW + 2 * SECOND)
    [first, second] = await claim(database, NOW + SECOND)
    await finish(
        database,
        outcome(first, NOW, delivered=True),
        outcome(second, NOW, delivered=False, retry=NOW + 9 * SECOND),
    )

    load = await _load(database)

    assert (load.deliveries, load.due_since) == (2, NOW + 2 * SECOND)
