"""Workers that are suspended, drained, or work side by side on real conversions."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from tests.conftest import Eventually
from tests.faults.sources import SteadySource
from tests.faults.worker_stage import (
    COMPLETED,
    DEADLINE_SEC,
    STARTED,
    WorkerStage,
    bucket_behind,
    check_bucket,
    check_local,
    worker_stage,
)
from tests.media import Clip, ClipFactory
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, FaultProxy

pytestmark = pytest.mark.timeout(180)

CLIP = Clip(seconds=10, size="640x360")
SEGMENTS = 5


@pytest.fixture
async def stage(data_dir: Path, database_url: str, eventually: Eventually) -> AsyncIterator[WorkerStage]:
    async with worker_stage(data_dir, database_url, eventually) as stage:
        yield stage


@pytest.mark.parametrize(
    ("database_url", "held"),
    [("sqlite", "segment_001.ts"), ("postgres", "prefix=master.m3u8")],
    indirect=["database_url"],
)
async def test_a_worker_that_wakes_up_past_its_lease_changes_nothing(
    stage: WorkerStage, clips: ClipFactory, s3: S3Server, proxy: FaultProxy, held: str
) -> None:
    """Case 31: SIGSTOP, another worker completes, SIGCONT: the first writes no row and no object, and deletes none."""
    bucket = s3.new_bucket()
    proxy.faults.append(Fault(held, late=True))
    first = await stage.worker()
    job = await stage.api.upload(clips.clip(CLIP), s3_config=bucket_behind(proxy.endpoint, s3, bucket))
    await proxy.hanging.wait()
    first.signal(signal.SIGSTOP)
    second = await stage.worker()
    await stage.completes(job)
    row = await stage.row(job)
    before = objects_of(s3, bucket)

    proxy.requests.clear()
    proxy.released.set()
    first.signal(signal.SIGCONT)
    lost = f"job {job.id}: claim 1 was lost"
    await stage.api.eventually(lambda: lost in stage.log.read_text(), within=DEADLINE_SEC)
    await second.kill()
    first.signal(signal.SIGTERM)
    assert await first.ends() == 0
    assert await stage.row(job) == row
    assert (row["epoch"], row["attempt"]) == (2, 2)
    assert await stage.events(job) == [COMPLETED, STARTED]
    assert [line for line in proxy.requests if line.startswith(("PUT", "POST", "DELETE"))] == []
    check_bucket(s3, bucket, SEGMENTS)
    # Segments that were on their way already may still have been carried out; playlists may not.
    changed = {key for key, stored in objects_of(s3, bucket).items() if stored != before[key]}
    assert [key for key in changed if not key.endswith(".ts")] == []
    await stage.is_tidy()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sigterm_hands_the_job_over(stage: WorkerStage, clips: ClipFactory) -> None:
    """Issue section 4, case 39: the attempt is not counted, no second `started`, another worker completes it."""
    job = await stage.api.upload(clips.clip(CLIP), ffmpeg_preset="slower")
    first = await stage.worker(drain_grace_sec=0)
    await stage.becomes(job, lambda seen: seen.progress.stage == "transcoding" and first.encodes)
    first.signal(signal.SIGTERM)
    assert await first.ends() == 0
    row = await stage.row(job)
    assert (row["status"], row["attempt"], row["owner"]) == ("PENDING", 0, None)
    await stage.worker()
    await stage.completes(job)
    row = await stage.row(job)
    assert (row["attempt"], row["epoch"]) == (1, 2)
    check_local(stage, job, SEGMENTS)
    await stage.api.eventually(lambda: stage.told(job) == [STARTED, COMPLETED])
    await stage.is_tidy()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_sigterm_lets_a_job_finish_within_the_grace(stage: WorkerStage, clips: ClipFactory) -> None:
    """Issue section 4: running work ends, nothing new begins, and the last events go out."""
    # Its source holds the first one back until the signal has been sent.
    async with SteadySource(clips.clip(CLIP), hold_at=0.5) as source:
        jobs = [await stage.api.convert(source.url), await stage.api.upload(clips.clip(CLIP))]
        first = await stage.worker(drain_grace_sec=60)
        await source.holding.wait()
        first.signal(signal.SIGTERM)
        source.release()
        assert await first.ends() == 0
    assert (await stage.api.get(jobs[0].id)).status == pb.ConversionJob.COMPLETED
    assert (await stage.api.get(jobs[1].id)).status == pb.ConversionJob.PENDING
    check_local(stage, jobs[0], SEGMENTS)
    await stage.worker()
    await stage.completes(jobs[1])
    await stage.is_tidy()


async def test_two_workers_share_the_work(stage: WorkerStage, clips: ClipFactory) -> None:
    """Issue section 4: six jobs, each done exactly once."""
    jobs = [await stage.api.upload(clips.clip()) for _ in range(6)]
    # No lease ends while one of them is held up: its job would rightly be done twice.
    workers = [await stage.worker(lease_sec=30) for _ in range(2)]
    for job in jobs:
        await stage.completes(job)
        check_local(stage, job, 2)
    rows = [await stage.row(job) for job in jobs]
    assert [(row["attempt"], row["epoch"]) for row in rows] == [(1, 1)] * 6
    told = Counter([event for job in jobs for event in await stage.events(job)])
    assert told == {STARTED: 6, COMPLETED: 6}
    assert (await stage.api.usage()).conversion_jobs == 6
    log = stage.log.read_text()
    assert len(workers) == log.count(" takes ")
    await stage.is_tidy()


def objects_of(s3: S3Server, bucket: str) -> dict[str, tuple[str, str]]:
    """Key → content's hash and time of the last write."""
    client = s3.client()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    client.close()
    return {entry["Key"]: (entry["ETag"], str(entry["LastModified"])) for entry in listed}
