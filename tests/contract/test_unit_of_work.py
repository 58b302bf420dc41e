"""The transaction port and its repositories, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from adapters.db.unit_of_work import SqlDatabase, SqlUnitOfWork
from server.domain.job import Job, JobStatus, Progress
from server.domain.project import ApiKey, LiveKitKey, Plan, Project, S3Config, Usage
from server.domain.webhook import NewEvent
from server.errors import Code, ServiceError
from server.ids import ProjectId, new_event_id
from tests.conftest import OpenDatabase
from tests.contract.rows import (
    NOW,
    OTHER,
    PROJECT,
    S3,
    SECOND,
    add_endpoints,
    add_job,
    add_projects,
    claim,
    endpoint,
    new_job,
)


@pytest.fixture
async def db(database: SqlDatabase) -> SqlDatabase:
    """Two projects are there."""
    await add_projects(database)
    return database


class TestTransactions:
    async def test_leaving_without_commit_rolls_back(self, db: SqlDatabase) -> None:
        job = new_job()
        async with db.begin() as tx:
            await tx.jobs.add(job, NOW)
        async with db.read() as tx:
            assert await tx.jobs.get(PROJECT, job.id) is None

    async def test_an_exception_rolls_back_and_frees_the_writer(self, db: SqlDatabase) -> None:
        job = new_job()

        async def fail() -> None:
            async with db.begin() as tx:
                await tx.jobs.add(job, NOW)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert (await add_job(db, job)).id == job.id

    async def test_a_cancelled_task_rolls_back_and_frees_the_writer(self, db: SqlDatabase) -> None:
        job, entered = new_job(), asyncio.Event()

        async def hang() -> None:
            async with db.begin() as tx:
                await tx.jobs.add(job, NOW)
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await add_job(db, job)).id == job.id

    async def test_state_and_event_commit_or_vanish_together(self, db: SqlDatabase) -> None:
        """The outbox: no event without its change, no change without its event."""
        await add_endpoints(db, endpoint())
        job = await add_job(db, new_job())
        event = NewEvent(new_event_id(), PROJECT, "video.started", job.id, "baxstream", b"{}", NOW)
        async with db.begin() as tx:
            await tx.jobs.claim(job.id, owner="w", now=NOW)
            await tx.outbox.record(event, ["wh_1"])
        assert await claim(db, NOW) == ()
        async with db.read() as tx:
            found = await tx.jobs.get(None, job.id)
        assert found is not None
        assert found.status is JobStatus.PENDING

    async def test_nothing_after_the_end(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            await tx.commit()
            with pytest.raises(RuntimeError, match="ended"):
                await tx.jobs.add(new_job(), NOW)
        with pytest.raises(RuntimeError, match="ended"):
            await tx.jobs.add(new_job(), NOW)

    async def test_reading_cannot_write(self, db: SqlDatabase) -> None:
        job = await add_job(db, new_job())
        async with db.read() as tx:
            with pytest.raises(Exception, match=r"(?i)read-?only"):
                await tx.jobs.claim(job.id, owner="w", now=NOW)
            with pytest.raises(RuntimeError):
                await tx.commit()
        async with db.read() as tx:
            assert (await tx.jobs.get(None, job.id)) == job

    async def test_readers_do_not_wait_for_a_writer(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            await tx.projects.save(Project(PROJECT, "Renamed", NOW))
            async with asyncio.timeout(5), db.read() as reading:
                seen = await reading.projects.get(PROJECT)
        assert seen is not None
        assert seen.name == "First"

    async def test_run_commits_and_returns(self, db: SqlDatabase) -> None:
        job = new_job()
        assert (await db.run(lambda tx: tx.jobs.add(job, NOW))).id == job.id
        async with db.read() as tx:
            assert await tx.jobs.get(PROJECT, job.id) is not None

    async def test_run_does_not_repeat_the_callers_own_errors(self, db: SqlDatabase) -> None:
        calls = 0

        async def fail(_tx: SqlUnitOfWork) -> None:
            nonlocal calls
            calls += 1
            raise ServiceError(Code.UNAVAILABLE, "storage is down")

        with pytest.raises(ServiceError, match="storage is down"):
            await db.run(fail)
        assert calls == 1


class TestProjects:
    async def test_round_trip(self, db: SqlDatabase) -> None:
        """GN-10, GN-11, GN-25."""
        project = Project(ProjectId("any id ü"), "Näme", NOW, S3, Plan(1.5, 3, 4, 2.5, 0.5))
        async with db.begin() as tx:
            await tx.projects.add(project)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.projects.get(project.id) == project
            assert await tx.projects.get(ProjectId("cl_none")) is None

    async def test_a_taken_id_is_told_and_the_transaction_goes_on(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            with pytest.raises(ServiceError) as caught:
                await tx.projects.add(Project(PROJECT, "Again", NOW))
            await tx.projects.add(Project(ProjectId("cl_third"), "Third", NOW))
            await tx.commit()
        assert caught.value.code is Code.ALREADY_EXISTS
        async with db.read() as tx:
            assert (await tx.projects.get(ProjectId("cl_third"))) is not None
            first = await tx.projects.get(PROJECT)
        assert first is not None
        assert first.name == "First"

    @pytest.mark.parametrize("s3", [None, S3Config(prefix="only/"), replace(S3, secret_key="NEW")])
    async def test_save(self, db: SqlDatabase, s3: S3Config | None) -> None:
        changed = Project(PROJECT, "Changed", NOW, s3, Plan(included_moderation_jobs=9))
        async with db.begin() as tx:
            await tx.projects.save(changed)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.projects.get(PROJECT) == changed
            assert await tx.projects.get(OTHER) == Project(OTHER, "Other", NOW + SECOND)

    async def test_pages(self, db: SqlDatabase) -> None:
        async with db.read() as tx:
            newest, total = await tx.projects.list(page=1, size=1)
            oldest, _ = await tx.projects.list(page=2, size=1)
            beyond, _ = await tx.projects.list(page=3, size=1)
        assert [project.id for project in newest + oldest + beyond] == [OTHER, PROJECT]
        assert total == 2

    async def test_usage_adds_up_over_concurrent_writers(self, db: SqlDatabase) -> None:
        """GN-08, GN-15: of one project only."""

        async def add(_: int) -> None:
            async with db.begin() as tx:
                await tx.projects.add_usage(PROJECT, Usage(1, 60, 6, 0, 1))
                await tx.commit()

        await asyncio.gather(*map(add, range(8)))
        async with db.read() as tx:
            assert await tx.projects.usage(PROJECT) == Usage(8, 480, 48, 0, 8)
            assert await tx.projects.usage(OTHER) == Usage()


class TestKeys:
    def key(self, key_id: str = "k1", project: ProjectId = PROJECT) -> ApiKey:
        return ApiKey(key_id, project, "Name", f"digest-{key_id}", True, NOW)

    async def test_api_keys(self, db: SqlDatabase) -> None:
        """GN-05, GN-06: found by digest, listed per project."""
        async with db.begin() as tx:
            await tx.keys.add_api_key(self.key())
            await tx.keys.add_api_key(replace(self.key("k2"), baxstream=False))
            await tx.keys.add_api_key(self.key("k3", OTHER))
            await tx.commit()
        async with db.read() as tx:
            assert await tx.keys.find_api_key("digest-k1") == self.key()
            assert await tx.keys.find_api_key("digest-none") is None
            assert [key.id for key in await tx.keys.list_api_keys(PROJECT)] == ["k1", "k2"]

    async def test_revoking_keeps_the_first_moment_and_respects_projects(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            await tx.keys.add_api_key(self.key())
            assert await tx.keys.revoke_api_key(OTHER, "k1", NOW) is None
            revoked = await tx.keys.revoke_api_key(PROJECT, "k1", NOW)
            again = await tx.keys.revoke_api_key(PROJECT, "k1", NOW + SECOND)
            await tx.commit()
        assert revoked == again == replace(self.key(), revoked_at=NOW)
        async with db.read() as tx:
            assert await tx.keys.find_api_key("digest-k1") == revoked

    async def test_last_use_never_goes_back(self, db: SqlDatabase) -> None:
        async with db.begin() as tx:
            await tx.keys.add_api_key(self.key())
            for at in (NOW, NOW + SECOND, NOW - SECOND):
                await tx.keys.touch_api_key("k1", at)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.keys.find_api_key("digest-k1") == replace(self.key(), last_used_at=NOW + SECOND)

    async def test_livekit_keys(self, db: SqlDatabase) -> None:
        key = LiveKitKey("APIabc", PROJECT, "sécret", NOW)
        async with db.begin() as tx:
            await tx.keys.add_livekit_key(key)
            await tx.commit()
        async with db.read() as tx:
            assert await tx.keys.find_livekit_key("APIabc") == key
            assert await tx.keys.list_livekit_keys(PROJECT) == (key,)
            assert await tx.keys.list_livekit_keys(OTHER) == ()
        async with db.begin() as tx:
            assert not await tx.keys.revoke_livekit_key(OTHER, "APIabc")
            assert await tx.keys.revoke_livekit_key(PROJECT, "APIabc")
            assert await tx.keys.find_livekit_key("APIabc") is None


class TestJobs:
    async def test_round_trip(self, db: SqlDatabase) -> None:
        job = new_job(
            metadata={"z": 1, "a": [None, 1.0, "é\0\ud800"]}, secrets={"accessKey": "x"}, max_attempts=5
        )
        added = await add_job(db, job)
        assert added == Job(
            id=job.id,
            project_id=PROJECT,
            kind="conversion",
            status=JobStatus.PENDING,
            spec=job.spec,
            metadata=job.metadata,
            attempt=0,
            max_attempts=5,
            epoch=0,
            created_at=NOW,
            updated_at=NOW,
        )
        async with db.read() as tx:
            stored = await tx.jobs.get(PROJECT, job.id)
            assert await tx.jobs.secrets(job.id) == {"accessKey": "x"}
        assert stored == added

    @pytest.mark.parametrize(
        "metadata", [None, False, 0, "", [], {}, {"b": 1, "a": 2}, [1.0, 1e300, 12345678901234567890]]
    )
    async def test_metadata_comes_back_as_it_was(self, db: SqlDatabase, metadata: Any) -> None:
        """GN-23: key order and number spelling too."""
        job = await add_job(db, new_job(metadata=metadata))
        assert json.dumps(job.metadata) == json.dumps(metadata)

    async def test_projects_do_not_see_each_others_jobs(self, db: SqlDatabase) -> None:
        """GN-07."""
        job = await add_job(db, new_job())
        async with db.begin() as tx:
            assert await tx.jobs.get(OTHER, job.id) is None
            assert not await tx.jobs.cancel(OTHER, job.id, NOW)
            page = await tx.jobs.list(OTHER, kind="conversion", status=None, page=1, size=10)
            assert await tx.jobs.get(None, job.id) == job
        assert (page.items, page.total) == ((), 0)

    async def test_lists_are_newest_first_and_filtered(self, db: SqlDatabase) -> None:
        jobs = [await add_job(db, new_job(), NOW + SECOND * n) for n in range(5)]
        await add_job(db, new_job(kind="other"))
        async with db.begin() as tx:
            await tx.jobs.claim(jobs[1].id, owner="w", now=NOW)
            await tx.commit()
        async with db.read() as tx:
            pages = [
                await tx.jobs.list(PROJECT, kind="conversion", status=None, page=page, size=2)
                for page in (1, 2, 3, 4)
            ]
            waiting = await tx.jobs.list(PROJECT, kind="conversion", status=JobStatus.PENDING, page=1, size=2)
        assert [job.id for page in pages for job in page.items] == [job.id for job in reversed(jobs)]
        assert {page.total for page in pages} == {5}
        assert ([job.id for job in waiting.items], waiting.total) == ([jobs[4].id, jobs[3].id], 4)

    async def test_a_whole_life(self, db: SqlDatabase) -> None:
        job = await add_job(db, new_job())
        playable = NOW + SECOND * 2
        async with db.begin() as tx:
            claimed = await tx.jobs.claim(job.id, owner="w1", now=NOW + SECOND)
            assert claimed is not None
            assert (claimed.status, claimed.epoch, claimed.attempt) == (JobStatus.PROCESSING, 1, 1)
            assert (claimed.owner, claimed.started_at) == ("w1", NOW + SECOND)
            progress = Progress(12.5, "transcoding", 3.1, None)
            assert await tx.jobs.update(job.id, epoch=1, progress=progress, result={"a": {"x": 1}, "b": 1})
            assert await tx.jobs.update(job.id, epoch=1, playable_at=playable, result={"a": {"y": 2}})
            assert await tx.jobs.complete(job.id, epoch=1, result={"c": 3}, now=NOW + SECOND * 3)
            await tx.commit()
        async with db.read() as tx:
            done = await tx.jobs.get(PROJECT, job.id)
        assert done is not None
        assert (done.status, done.completed_at) == (JobStatus.COMPLETED, NOW + SECOND * 3)
        assert done.result == {"a": {"y": 2}, "b": 1, "c": 3}
        assert (done.progress, done.playable_at) == (progress, playable)

    async def test_a_second_claim_fences_the_first(self, db: SqlDatabase) -> None:
        """A worker that lost the job changes nothing any more, whatever it tries."""
        job = await add_job(db, new_job())
        async with db.begin() as tx:
            await tx.jobs.claim(job.id, owner="w1", now=NOW)
            second = await tx.jobs.claim(job.id, owner="w2", now=NOW + SECOND)
            assert not await tx.jobs.update(job.id, epoch=1, result={"stale": 1})
            assert not await tx.jobs.update(job.id, epoch=1, progress=Progress(1, "probing"))
            assert not await tx.jobs.complete(job.id, epoch=1, result={"stale": 1}, now=NOW)
            assert not await tx.jobs.fail(job.id, epoch=1, code="X", message="m", now=NOW)
            assert not await tx.jobs.release(job.id, epoch=1, refund_attempt=True)
            assert await tx.jobs.get(None, job.id) == second
        assert second is not None
        assert (second.epoch, second.attempt, second.started_at) == (2, 2, NOW)

    @pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
    async def test_final_states_are_final(self, db: SqlDatabase, end: str) -> None:
        """VC-69, VC-70, VC-71, B-29."""
        job = await add_job(db, new_job())
        async with db.begin() as tx:
            if end == "cancel":
                assert await tx.jobs.cancel(PROJECT, job.id, NOW)
            else:
                await tx.jobs.claim(job.id, owner="w", now=NOW)
                if end == "complete":
                    assert await tx.jobs.complete(job.id, epoch=1, result={}, now=NOW)
                else:
                    assert await tx.jobs.fail(
                        job.id, epoch=1, code="TRANSCODE_FAILED", message="a\0b", now=NOW
                    )
            final = await tx.jobs.get(None, job.id)
            assert final is not None
            assert final.status.is_final
            assert await tx.jobs.claim(job.id, owner="w", now=NOW) is None
            assert not await tx.jobs.cancel(PROJECT, job.id, NOW)
            assert not await tx.jobs.complete(job.id, epoch=final.epoch, result={"x": 1}, now=NOW)
            assert not await tx.jobs.fail(job.id, epoch=final.epoch, code="X", message="", now=NOW)
            assert not await tx.jobs.release(job.id, epoch=final.epoch, refund_attempt=False)
            assert not await tx.jobs.update(job.id, epoch=final.epoch, result={"x": 1})
            assert await tx.jobs.get(None, job.id) == final

    async def test_failing_keeps_code_and_message(self, db: SqlDatabase) -> None:
        job = await add_job(db, new_job())
        async with db.begin() as tx:
            assert await tx.jobs.fail(job.id, epoch=0, code="DOWNLOAD_FAILED", message="no\0thing", now=NOW)
            failed = await tx.jobs.get(None, job.id)
        assert failed is not None
        assert (failed.error_code, failed.error_message, failed.failed_at) == (
            "DOWNLOAD_FAILED",
            "nothing",
            NOW,
        )

    @pytest.mark.parametrize(("refund", "attempt"), [(True, 0), (False, 1)])
    async def test_release_hands_over(self, db: SqlDatabase, refund: bool, attempt: int) -> None:
        job = await add_job(db, new_job())
        async with db.begin() as tx:
            await tx.jobs.claim(job.id, owner="w", now=NOW)
            assert await tx.jobs.release(job.id, epoch=1, refund_attempt=refund)
            assert not await tx.jobs.update(job.id, epoch=1, result={"late": True})
            released = await tx.jobs.get(None, job.id)
        assert released is not None
        assert (released.status, released.attempt, released.owner) == (JobStatus.PENDING, attempt, None)

    async def test_cancel_against_claim_has_one_winner(
        self, db: SqlDatabase, open_again: OpenDatabase
    ) -> None:
        """B-29: many at once, over two processes' connections; never both, never neither."""
        second = await open_again()
        jobs = [await add_job(db, new_job()) for _ in range(6)]

        async def cancel(database: SqlDatabase, job: Job) -> str | None:
            async with database.begin() as tx:
                won = await tx.jobs.cancel(PROJECT, job.id, NOW)
                await tx.commit()
            return "cancel" if won else None

        async def claim_job(database: SqlDatabase, job: Job) -> str | None:
            async with database.begin() as tx:
                won = await tx.jobs.claim(job.id, owner="w", now=NOW)
                await tx.commit()
            return "claim" if won else None

        for job in jobs:
            results = await asyncio.gather(
                *(
                    action(base, job)
                    for base in (db, second)
                    for action in (cancel, claim_job)
                    for _ in range(3)
                )
            )
            async with db.read() as tx:
                final = await tx.jobs.get(None, job.id)
            assert final is not None
            if final.status is JobStatus.CANCELLED:
                assert Counter(filter(None, results)) == {"cancel": 1}
            else:
                # A claim of a running job is a take-over, so all claims succeed, each under its own epoch.
                assert Counter(filter(None, results)) == {"claim": 6}
                assert final.epoch == 6
