"""What may start, and what becomes of egresses that nobody looks after, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from adapters.db.tables import jobs
from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import EGRESS_KIND, Egress, EgressStatus, ImagesOutput, Outputs
from server.domain.egress_load import cores
from server.domain.job import JobStatus, NewJob
from server.egress.abandoned import HOST_AWAY_AFTER
from server.egress.capacity import Capacity
from server.egress.handler import delivery_job_id
from server.egress.journal import JOURNAL_NAME
from server.errors import Code, ServiceError
from server.ids import JobId, new_egress_id
from server.ports.recorder import Active, ImageWritten, Joined
from tests.conftest import Eventually
from tests.contract.egress_samples import HLS, segment_written
from tests.contract.egress_script import at
from tests.contract.egress_stage import EgressStage


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = EgressStage(database, tmp_path / "data", eventually, capacity=Capacity(within_sec=60))
    await stage.open()
    yield stage
    await stage.close()


async def offer(stage: EgressStage, weight: float) -> None:
    async with stage.database.begin() as tx:
        await tx.workers.offer("a worker", EGRESS_KIND, weight)
        await tx.commit()


async def captured(stage: EgressStage) -> Egress:
    """Recorded and stopped; its delivery waits."""
    egress = await stage.start()
    claim = await stage.claim(egress)
    (await stage.recorders.number(len(stage.recorders.started))).records(4, at=at(0))
    await stage.becomes(egress, EgressStatus.ACTIVE)
    await stage.stop(egress)
    await claim.ends()
    return await stage.becomes(egress, EgressStatus.ENDING)


class TestCapacity:
    """Issue section 4: capacity is counted in cores."""

    async def test_nobody_could_do_it(self, stage: EgressStage) -> None:
        with pytest.raises(ServiceError) as caught:
            await stage.start()
        assert caught.value.code is Code.UNAVAILABLE

    async def test_a_machine_too_small_does_one_at_a_time(self, stage: EgressStage) -> None:
        await offer(stage, 0.01)
        first = await stage.start()
        with pytest.raises(ServiceError, match="all workers are busy") as caught:
            await stage.start()
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        await stage.stop(first)
        await stage.start()

    async def test_the_workers_add_up(self, stage: EgressStage) -> None:
        await offer(stage, 10.0)
        first = await stage.start()
        await offer(stage, 2.5 * cores(first.plan))
        await stage.start()
        with pytest.raises(ServiceError, match="all workers are busy"):
            await stage.start()

    async def test_what_waits_for_its_storage_takes_no_core(self, stage: EgressStage) -> None:
        """Hours may pass until a storage that is away comes back."""
        await offer(stage, 0.01)
        await captured(stage)
        await stage.start()


async def test_two_that_start_under_one_id_get_the_same(stage: EgressStage) -> None:
    """Two calls that both open a room ask for the same egress (livekit-surface 5.5)."""
    await offer(stage, 100.0)
    egress_id = new_egress_id()
    made = await asyncio.gather(*(stage.start(egress_id=egress_id) for _ in range(6)))
    assert {one.id for one in made} == {egress_id}
    assert (await stage.control.list(made[0].project_id)).total == 1


class TestAbandoned:
    """Nothing stays STARTING or ENDING for ever."""

    async def test_a_host_that_never_comes_back(self, stage: EgressStage) -> None:
        """Its files are there and nowhere else; when it does come back it keeps them."""
        await offer(stage, 10.0)
        egress = await captured(stage)
        assert await stage.abandoned.run() == 0
        await _age(stage, egress, HOST_AWAY_AFTER + timedelta(hours=1))
        assert await stage.abandoned.run() == 1
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert (done.failing.code, "away for too long" in done.failing.message) == ("EGRESS_FAILED", True)
        assert (await stage.recording(egress)).status == "FAILED"
        assert (await stage.names()).count("recording.failed") == 1

        await stage.deliver()
        await stage.sweep.run()
        assert (stage.files / "egress" / egress.id / "part-000.mp4").exists()
        assert (await stage.egress(egress)).status is EgressStatus.FAILED

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["undelivered", "delivered elsewhere"])
    @pytest.mark.parametrize("left", ["", "not uploaded", "open"])
    async def test_segments_that_were_never_uploaded_are_kept(
        self, stage: EgressStage, caplog: pytest.LogCaptureFixture, left: str, *, elsewhere: bool
    ) -> None:
        """Design 7: what is nowhere else, be it the segment that was open, is kept and told of; nothing else is."""
        await offer(stage, 10.0)
        egress, folder = await _died_with_a_segment(stage)
        if left == "not uploaded":
            journal = folder / JOURNAL_NAME
            lines = journal.read_text().splitlines(keepends=True)
            journal.write_text("".join(line for line in lines if '"stored"' not in line))
        elif left == "open":
            (folder / "seg-000-00001.ts").write_bytes(b"a minute")
        await _fail(stage, egress.job_id)
        assert await stage.abandoned.run() == 1
        await stage.becomes(egress, EgressStatus.FAILED)
        if elsewhere:
            await _deliver_elsewhere(stage, egress)
        assert await stage.sweep.run() == (0 if left else 1)
        assert folder.exists() is bool(left)
        assert ("never delivered" in caplog.text) is bool(left)

    async def test_images_that_were_never_uploaded_are_kept(self, stage: EgressStage) -> None:
        await offer(stage, 10.0)
        egress = await stage.start(Outputs(images=(ImagesOutput("shots/img", 5),)))
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        image = recorder.folder / "image-0-000-00000.jpeg"
        # It cannot be uploaded.
        image.mkdir()
        recorder.says(Joined("RM_first"), Active(at(0)), ImageWritten(0, image.name, 0, at(1)))
        await stage.eventually(lambda: image.name in (recorder.folder / JOURNAL_NAME).read_text())
        await claim.dies()
        await _fail(stage, egress.job_id)
        assert await stage.abandoned.run() == 1
        assert await stage.sweep.run() == 0
        assert image.exists()

    async def test_what_another_host_ended_is_kept_by_the_one_that_has_it(self, stage: EgressStage) -> None:
        """The other one died between the end of the egress and that of its job, which comes back to the first."""
        await offer(stage, 10.0)
        egress, folder = await _died_with_a_segment(stage)
        (folder / "seg-000-00001.ts").write_bytes(b"a minute")
        away = folder.rename(folder.with_name("of the first host"))
        stage.rooms.sids = {}
        other = await stage.claim(egress, host="other")
        await other.ends()
        await stage.becomes(egress, EgressStatus.FAILED)
        assert not folder.exists()
        await stage.unfinish(other)
        away.rename(folder)
        await (await stage.claim(egress)).ends()
        assert (folder / "seg-000-00001.ts").exists()

    @pytest.mark.parametrize("of_delivery", [False, True], ids=["capture", "delivery"])
    async def test_a_job_that_failed_unseen(self, stage: EgressStage, of_delivery: bool) -> None:
        """Whoever failed the job died before it could end the egress."""
        await offer(stage, 10.0)
        egress = await captured(stage) if of_delivery else await stage.start()
        job_id = delivery_job_id(egress.id) if of_delivery else egress.job_id
        await _fail(stage, job_id)
        assert await stage.abandoned.run() == 1
        await stage.becomes(egress, EgressStatus.FAILED)
        assert await stage.abandoned.run() == 0

    async def test_what_runs_or_waits_is_left_alone(self, stage: EgressStage) -> None:
        await offer(stage, 10.0)
        waiting = await stage.start()
        await _age(stage, waiting, timedelta(days=30))
        assert await stage.abandoned.run() == 0
        assert (await stage.job(waiting.job_id)).status is JobStatus.PENDING


async def _died_with_a_segment(stage: EgressStage) -> tuple[Egress, Path]:
    """The folder of one whose worker died when its first segment was in place."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    recorder = await stage.recorders.number(0)
    recorder.says(Joined("RM_first"), Active(at(0)), segment_written(recorder, 0, 0))
    await stage.eventually(lambda: "live/live.m3u8" in stage.objects(egress))
    await claim.dies()
    return egress, recorder.folder


async def _deliver_elsewhere(stage: EgressStage, egress: Egress) -> None:
    """By a host that went on with it."""
    job_id, now = delivery_job_id(egress.id), stage.clock.now()
    async with stage.database.begin() as tx:
        await tx.jobs.add(NewJob(job_id, egress.project_id, "egress_delivery@other", {}), now)
        job = await tx.jobs.claim(job_id, owner="other", now=now)
        assert job is not None
        assert await tx.jobs.complete(job_id, epoch=job.epoch, result={}, now=now)
        await tx.commit()


async def _age(stage: EgressStage, egress: Egress, age: timedelta) -> None:
    """Nobody has touched its jobs for so long."""
    long_ago = stage.clock.now() - age
    ids = (egress.job_id, delivery_job_id(egress.id))
    older = update(jobs).where(jobs.c.id.in_(ids)).values(created_at=long_ago, updated_at=long_ago)
    async with stage.database.begin() as tx:
        await tx.run_sync(lambda connection: connection.execute(older))
        await tx.commit()


async def _fail(stage: EgressStage, job_id: JobId) -> None:
    """By somebody who died before they could end its egress."""
    async with stage.database.begin() as tx:
        job = await tx.jobs.claim(job_id, owner="w", now=stage.clock.now())
        assert job is not None
        assert await tx.jobs.fail(
            job_id, epoch=job.epoch, code="INTERNAL", message="it broke", now=stage.clock.now()
        )
        await tx.commit()
