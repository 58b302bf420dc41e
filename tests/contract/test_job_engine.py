"""The job engine's contract, on SQLite and PostgreSQL, with real worker processes that are killed and suspended."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.job import Job, JobStatus, NewJob
from server.errors import Code, ServiceError
from server.ids import ProjectId, new_job_id
from tests.conftest import Eventually
from tests.contract.job_stage import DEADLINE_SEC, PROJECT, Said, Stage
from tests.contract.job_worker import INNER_DETAIL, KIND
from tests.servers.postgres import PostgresServer

STARTED, COMPLETED, FAILED = (f"video.conversion.{what}" for what in ("started", "completed", "failed"))


@pytest.fixture
async def stage(
    database: SqlDatabase, database_url: str, secret_keys: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    async with Stage(database, database_url, secret_keys, tmp_path / "workers.log") as stage:
        yield stage


# --- submitting


async def test_a_job_runs_once_its_transaction_commits_and_never_before(stage: Stage) -> None:
    """VC-67, GN-23: PENDING → PROCESSING → COMPLETED, started and completed events and usage with it."""
    await stage.worker()
    dropped = NewJob(new_job_id(), PROJECT, KIND, {})
    async with stage.database.begin() as tx:
        await stage.engine.submit(tx, dropped)

    job = await stage.submit(secrets={"accessKey": "AKIA"})
    started = await stage.hears("started", job=job)
    running = await stage.job(job)
    stage.tell(started, "finish")
    done = await stage.becomes(job, JobStatus.COMPLETED)

    assert (await stage.hears("settled", job=job)).more["status"] == "COMPLETED"
    assert job.status is JobStatus.PENDING
    assert started.more["secrets"] == {"accessKey": "AKIA"}
    assert (running.status, running.attempt, running.epoch) == (JobStatus.PROCESSING, 1, 1)
    assert running.owner is not None
    assert running.started_at is not None
    assert done.result == {"by": started.pid, "epoch": 1}
    assert done.owner is None
    assert await stage.events(job) == [COMPLETED, STARTED]
    assert (await stage.usage()).conversion_jobs == 1
    assert {said.job for said in stage.said} == {None, job.id}


async def test_the_same_job_submitted_twice_runs_once(stage: Stage) -> None:
    """VC-27: one id, one job, whichever of the two transactions was first."""
    await stage.worker(concurrency=4)
    new = NewJob(new_job_id(), PROJECT, KIND, {})

    async def submit() -> None:
        async with stage.database.begin() as tx:
            await stage.engine.submit(tx, new)
            await tx.commit()

    outcomes = await asyncio.gather(submit(), submit(), submit(), return_exceptions=True)
    stage.tell(await stage.hears("started"), "finish")
    other = await stage.submit()
    stage.tell(await stage.hears("started", job=other), "finish")
    await stage.becomes(other, JobStatus.COMPLETED)

    assert sum(outcome is None for outcome in outcomes) == 1
    assert Counter(said.job for said in stage.said if said.at == "started") == {new.id: 1, other.id: 1}


async def test_a_delayed_job_waits_and_can_be_cancelled_meanwhile(stage: Stage) -> None:
    """VC-71: a delay holds no worker; what is cancelled while it waits never runs."""
    await stage.worker()
    # Longer than a busy machine may take to come to the cancelling.
    cancelled = await stage.submit(delay_sec=2.0)
    delayed = await stage.submit(delay_sec=2.5)

    assert await stage.cancel(cancelled)
    stage.tell(await stage.hears("started", job=delayed), "finish")
    done = await stage.becomes(delayed, JobStatus.COMPLETED)

    assert done.started_at is not None
    assert done.started_at - delayed.created_at >= timedelta(seconds=2.4)
    assert stage.count("started", cancelled) == 0
    assert (await stage.job(cancelled)).status is JobStatus.CANCELLED


async def test_cancel_against_pick_up_has_one_winner(stage: Stage) -> None:
    """B-29, VC-71: either cancelled and never started, or started and not cancellable."""
    await stage.worker(concurrency=30)
    jobs, cancels = [], []
    for number in range(30):
        jobs.append(await stage.submit())
        await asyncio.sleep(random.Random(number).uniform(0, 0.02))
        cancels.append(asyncio.create_task(stage.cancel(jobs[-1])))
    won = await asyncio.gather(*cancels)

    for job, cancelled in zip(jobs, won, strict=True):
        if cancelled:
            assert (await stage.job(job)).status is JobStatus.CANCELLED
        else:
            started = await stage.hears("started", job=job)
            assert not await stage.cancel(job)
            stage.tell(started, "finish")
            await stage.becomes(job, JobStatus.COMPLETED)
            assert not await stage.cancel(job)
    assert {said.job for said in stage.said if said.at == "started"} == {
        job.id for job, cancelled in zip(jobs, won, strict=True) if not cancelled
    }


async def test_projects_take_turns(stage: Stage) -> None:
    """One project's backlog does not keep the others waiting."""
    others = [ProjectId("cl_proj_b"), ProjectId("cl_proj_c")]
    for project in others:
        await stage.add_project(project)
    for project in [PROJECT] * 12 + others * 3:
        await stage.submit(project, auto=True)
    await stage.worker()

    started = await stage.hears_many(18, lambda said: said.at == "started")

    assert Counter(said.project for said in started[:9]) == {PROJECT: 3, others[0]: 3, others[1]: 3}


# --- failing


async def test_a_permanent_fault_fails_at_once(stage: Stage) -> None:
    """VC-70, B-64: the handler's code and sentence, one failed event, no further attempt."""
    await stage.worker()
    job = await stage.submit()
    stage.tell(await stage.hears("started", job=job), "fail")
    done = await stage.becomes(job, JobStatus.FAILED)

    assert (done.error_code, done.error_message) == (
        "TRANSCODE_FAILED",
        "The source ended after 3.2 s of 10.0 s.",
    )
    assert (await stage.hears("settled", job=job)).more["status"] == "FAILED"
    assert (done.attempt, done.epoch, done.owner) == (1, 1, None)
    assert await stage.events(job) == [FAILED, STARTED]
    assert (await stage.usage()).conversion_jobs == 0


async def test_a_passing_fault_is_retried_after_its_delay_until_attempts_are_used_up(stage: Stage) -> None:
    """VC-70: each retry costs an attempt; the last one fails with the fault's own code."""
    await stage.worker()
    job = await stage.submit(max_attempts=2)
    # Long enough to be seen waiting by a test that is held up itself.
    stage.tell(await stage.hears("started", job=job, epoch=1), "retry", delay=2.0)
    waiting = await stage.becomes(job, JobStatus.PENDING)
    second = await stage.hears("started", job=job, epoch=2)
    running = await stage.job(job)
    stage.tell(second, "retry", delay=2.0)
    done = await stage.becomes(job, JobStatus.FAILED)

    assert (waiting.attempt, waiting.owner) == (1, None)
    assert (running.attempt, running.updated_at is not None and waiting.updated_at is not None) == (2, True)
    assert running.updated_at - waiting.updated_at >= timedelta(seconds=1.95)  # type: ignore[operator]
    assert (done.error_code, done.error_message) == ("STORAGE_UNAVAILABLE", "The storage is down.")
    assert await stage.events(job) == [FAILED, STARTED]


@pytest.mark.parametrize("how", ["break", "finish wrongly"])
async def test_an_unexpected_error_is_retried_then_fails_without_its_details(stage: Stage, how: str) -> None:
    """INTERNAL with one generic sentence; what happened is in the log only."""
    await stage.worker()
    job = await stage.submit(max_attempts=2)
    for epoch in (1, 2):
        stage.tell(await stage.hears("started", job=job, epoch=epoch), how)
    done = await stage.becomes(job, JobStatus.FAILED)

    assert (done.error_code, done.attempt) == ("INTERNAL", 2)
    assert done.error_message == "The job failed because of an internal error."
    assert INNER_DETAIL not in repr(done)
    assert await stage.events(job) == [FAILED, STARTED]


# --- dying


@pytest.mark.parametrize("where", [STARTED, "running", "saved", COMPLETED, FAILED])
async def test_kill_9_at_every_stage_loses_nothing(stage: Stage, where: str) -> None:
    """I2, case 30: killed inside the claim, the work, the saving or the last transaction, the job still ends once."""
    killed = await stage.worker()
    job = await stage.submit(pause=[where])
    at = await _brought_to(
        stage, where, await stage.hears(STARTED if where == STARTED else "started", job=job)
    )
    await killed.signal(signal.SIGKILL)
    before = await stage.job(job)

    rescuer = await stage.worker()
    await _let_go(stage, rescuer.pid, where, wanted=[STARTED, "started", COMPLETED])
    done = await stage.becomes(job, JobStatus.COMPLETED)

    assert at.pid == killed.pid
    assert before.status is (JobStatus.PENDING if where == STARTED else JobStatus.PROCESSING)
    assert done.result["by"] == rescuer.pid
    assert done.result.get("saved") == (killed.pid if where == "saved" else None)
    assert done.epoch == done.attempt == (1 if where == STARTED else 2)
    assert await stage.events(job) == [COMPLETED, STARTED]
    assert (await stage.usage()).conversion_jobs == 1


async def _brought_to(stage: Stage, where: str, at: Said) -> Said:
    if where in {STARTED, "running"}:
        return at
    stage.tell(at, {"saved": "save", COMPLETED: "finish", FAILED: "fail"}[where])
    return await stage.hears(where)


async def _let_go(stage: Stage, pid: int, where: str, wanted: list[str]) -> None:
    """Answers wherever the second worker waits."""
    for stop in wanted:
        if stop == "started" or stop == where:
            stage.tell(await stage.hears(stop, pid=pid), "finish")


async def test_a_worker_that_vanished_with_its_machine_is_replaced_after_its_lease(stage: Stage) -> None:
    """Nothing is known of the process, only that it beats no more."""
    first = await stage.worker(rescue_local=False)
    second = await stage.worker(rescue_local=False)
    job = await stage.submit()
    owner = await stage.hears("started", job=job)
    killed, rescuer = (first, second) if owner.pid == first.pid else (second, first)
    await killed.signal(signal.SIGKILL)

    stage.tell(await stage.hears("started", job=job, pid=rescuer.pid), "finish")

    assert (await stage.becomes(job, JobStatus.COMPLETED)).epoch == 2


async def test_a_job_that_kills_its_workers_is_given_up(stage: Stage) -> None:
    """2.6: a poison job ends FAILED after its attempts instead of felling one worker after another."""
    job = await stage.submit(max_attempts=2)
    for epoch in (1, 2):
        victim = await stage.worker()
        await stage.hears("started", job=job, epoch=epoch)
        await victim.signal(signal.SIGKILL)
    await stage.worker()
    done = await stage.becomes(job, JobStatus.FAILED)

    assert (await stage.hears("settled", job=job)).more["status"] == "FAILED"
    assert (done.error_code, done.error_message) == ("INTERNAL", "the worker was lost 2 times")
    assert done.attempt == 2
    assert stage.count("started", job) == 2
    assert await stage.events(job) == [FAILED, STARTED]


async def test_a_worker_that_was_suspended_past_its_lease_writes_nothing_more(stage: Stage) -> None:
    """Case 31: SIGSTOP, taken over, SIGCONT: the old owner's save is refused and it is told to stop."""
    # Its own patience is longer: it must not take the jobs back from a second one that is held up for a moment.
    first = await stage.worker(concurrency=2, lease_sec=5.0)
    job = await stage.submit()
    idle = await stage.submit()
    stale = await stage.hears("started", job=job)
    stale_idle = await stage.hears("started", job=idle)
    await first.signal(signal.SIGSTOP)
    second = await stage.worker(concurrency=2)
    fresh = await stage.hears("started", job=job, pid=second.pid)
    fresh_idle = await stage.hears("started", job=idle, pid=second.pid)
    stage.tell(fresh, "save")
    await stage.hears("saved", job=job, pid=second.pid)

    stage.tell(stale, "save")
    await first.signal(signal.SIGCONT)
    # Whichever comes first: the refused save or the heartbeat that finds the job gone.
    (told,) = await stage.hears_many(
        1, lambda said: said.pid == first.pid and said.at in {"lost", "stopped"} and said.job == job.id
    )
    await stage.hears("stopped", job=idle, pid=first.pid)
    kept = await stage.job(job)
    stage.tell(fresh, "finish")
    stage.tell(fresh_idle, "finish")
    done = await stage.becomes(job, JobStatus.COMPLETED)
    await stage.becomes(idle, JobStatus.COMPLETED)

    assert told.epoch == stale_idle.epoch == 1
    assert (kept.epoch, kept.result) == (2, {"saved": second.pid})
    assert done.result == {"saved": second.pid, "by": second.pid, "epoch": 2}
    assert await stage.events(job) == [COMPLETED, STARTED]
    assert (await stage.usage()).conversion_jobs == 2


async def test_of_two_workers_that_finish_one_job_only_the_owner_does(stage: Stage) -> None:
    """I2: the suspended one was told to finish before it woke up; its result is dropped, the other's stands."""
    # Patient with the second one, as above.
    first = await stage.worker(lease_sec=5.0)
    job = await stage.submit()
    stale = await stage.hears("started", job=job)
    await first.signal(signal.SIGSTOP)
    second = await stage.worker()
    fresh = await stage.hears("started", job=job, pid=second.pid)
    stage.tell(stale, "finish")
    await first.signal(signal.SIGCONT)
    # Its next job shows that it has put the old one behind it.
    other = await stage.submit()
    stage.tell(await stage.hears("started", job=other, pid=first.pid), "finish")
    await stage.becomes(other, JobStatus.COMPLETED)
    still = await stage.job(job)
    stage.tell(fresh, "finish")
    done = await stage.becomes(job, JobStatus.COMPLETED)

    assert (still.status, still.result) == (JobStatus.PROCESSING, {})
    assert done.result == {"by": second.pid, "epoch": 2}
    assert await stage.events(job) == [COMPLETED, STARTED]


async def test_many_workers_never_claim_one_job_twice(stage: Stage) -> None:
    """Case 36: claims from several processes at once; each job is run once, under its first epoch."""
    # No lease ends while one of them is held up: a rightful take-over would be a second claim.
    for _ in range(3):
        await stage.worker(concurrency=3, lease_sec=10.0)
    jobs = await asyncio.gather(*(stage.submit(auto=True) for _ in range(40)))
    ended = [await stage.becomes(job, JobStatus.COMPLETED) for job in jobs]

    assert {(job.epoch, job.attempt) for job in ended} == {(1, 1)}
    assert Counter(said.job for said in stage.said if said.at == "started") == {job.id: 1 for job in jobs}
    assert len({said.pid for said in stage.said if said.at == "started"}) > 1


async def test_many_jobs_many_workers_and_a_killer(stage: Stage) -> None:
    """Case 36: every job ends COMPLETED exactly once although workers die all the time; the database stays whole."""
    chance = random.Random(7)
    workers = [await stage.worker(concurrency=2) for _ in range(2)]
    jobs = [await stage.submit(auto=True, max_attempts=50) for _ in range(24)]
    for deaths in range(1, 4):
        await stage.hears_many(deaths * 6, lambda said: said.at == "started")
        victim = workers.pop(chance.randrange(len(workers)))
        await victim.signal(signal.SIGKILL)
        workers.append(await stage.worker(concurrency=2))
    for job in jobs:
        await stage.becomes(job, JobStatus.COMPLETED)
        assert await stage.events(job) == [COMPLETED, STARTED]

    assert (await stage.usage()).conversion_jobs == len(jobs)
    if stage.database.dialect == "sqlite":
        async with stage.database.read() as tx:
            check = await tx.run_sync(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar())
        assert check == "ok"


# --- clocks


async def _beats_of(stage: Stage, job: Job) -> int:
    async with stage.database.read() as tx:
        return next((row.beat for row in await tx.queue.running([KIND]) if row.id == job.id), -1)


async def test_workers_whose_clocks_differ_by_hours_take_nothing_from_each_other(
    stage: Stage, eventually: Eventually
) -> None:
    """Case 38: no mass expiry, no starvation, and a worker that has died is still found."""
    workers = [
        await stage.worker(clock_offset_sec=hours * 3600.0, rescue_local=False) for hours in (0.0, 2.0, -2.0)
    ]
    jobs = [await stage.submit() for _ in workers]
    started = [await stage.hears("started", job=job) for job in jobs]
    before = [await _beats_of(stage, job) for job in jobs]

    async def outlived_two_leases() -> bool:
        return all([await _beats_of(stage, job) >= past + 12 for job, past in zip(jobs, before, strict=True)])

    await eventually(outlived_two_leases, within=DEADLINE_SEC, every=0.1)
    dead, *living = started
    await next(worker for worker in workers if worker.pid == dead.pid).signal(signal.SIGKILL)
    for at in living:
        stage.tell(at, "finish")
    taken = await stage.hears("started", job=jobs[0], epoch=2)
    stage.tell(taken, "finish")
    ended = [await stage.becomes(job, JobStatus.COMPLETED) for job in jobs]

    assert {said.pid for said in started} == {worker.pid for worker in workers}
    assert [job.epoch for job in ended] == [2, 1, 1]


@pytest.mark.parametrize("hours", [2.0, -2.0])
async def test_a_retry_is_not_put_off_by_the_clock_of_who_asked_for_it(stage: Stage, hours: float) -> None:
    """Case 38: it stamped the time of the next attempt and died; who is left has another idea of the time."""
    stray = await stage.worker(clock_offset_sec=hours * 3600.0)
    job = await stage.submit()
    # Longer than the killing may take, or it would take the job again itself.
    stage.tell(await stage.hears("started", job=job), "retry", delay=2.0)
    await stage.becomes(job, JobStatus.PENDING)
    await stray.signal(signal.SIGKILL)
    await stage.worker()

    stage.tell(await stage.hears("started", job=job, epoch=2), "finish")
    done = await stage.becomes(job, JobStatus.COMPLETED)

    assert (done.attempt, done.epoch) == (2, 2)


# --- stopping


async def test_sigterm_lets_running_work_finish_and_takes_no_more(stage: Stage) -> None:
    """Case 39. Status 0 also says that no thread was left behind."""
    worker = await stage.worker()
    job = await stage.submit()
    started = await stage.hears("started", job=job)
    await worker.signal(signal.SIGTERM)
    await stage.hears("draining", pid=worker.pid)
    late = await stage.submit()
    stage.tell(started, "finish")

    assert await worker.exit_status() == 0
    assert (await stage.job(job)).status is JobStatus.COMPLETED
    assert (await stage.job(late)).status is JobStatus.PENDING


@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "ignores stop"])
async def test_sigterm_hands_over_what_does_not_finish_in_time(stage: Stage, stays: bool) -> None:
    """Case 39: another worker has it at once, and the attempt is given back."""
    leaving = await stage.worker(grace_sec=0.1, stop_grace_sec=0.1 if stays else 30.0)
    job = await stage.submit()
    started = await stage.hears("started", job=job)
    if stays:
        stage.tell(started, "stay")
        await stage.hears("staying", job=job)
    staying = await stage.worker(lease_sec=60.0)
    await leaving.signal(signal.SIGTERM)

    taken = await stage.hears("started", job=job, pid=staying.pid)
    status = await leaving.exit_status()
    stage.tell(taken, "finish")
    done = await stage.becomes(job, JobStatus.COMPLETED)

    assert status == 0
    assert stage.count("stopped", job) == (0 if stays else 1)
    assert (taken.epoch, taken.attempt, done.attempt) == (2, 1, 1)
    assert await stage.events(job) == [COMPLETED, STARTED]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_database_that_restarts_costs_no_job(stage: Stage, postgres: PostgresServer) -> None:
    """Case 37: running work goes on, its end is written once the database is back, new work is taken."""
    await stage.worker(concurrency=2)
    job = await stage.submit()
    started = await stage.hears("started", job=job)
    postgres.stop(signal.SIGINT)
    try:
        stage.tell(started, "finish")
        with pytest.raises(ServiceError) as refused:
            await stage.submit()
    finally:
        postgres.start()
    done = await stage.becomes(job, JobStatus.COMPLETED)
    other = await stage.submit()
    stage.tell(await stage.hears("started", job=other), "finish")
    await stage.becomes(other, JobStatus.COMPLETED)

    assert refused.value.code is Code.UNAVAILABLE
    assert (done.epoch, done.result["by"]) == (1, started.pid)
    assert await stage.events(job) == [COMPLETED, STARTED]
