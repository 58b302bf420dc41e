"""kill -9 of a worker at each stage of a real conversion; another worker completes the job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from tests.conftest import Eventually
from tests.faults.databases import check_sqlite
from tests.faults.sources import SteadySource
from tests.faults.worker_stage import (
    COMPLETED,
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


async def check_end(stage: WorkerStage, job: pb.ConversionJob) -> None:
    """I2–I4: one end, told once, and nothing left over."""
    assert await stage.events(job) == [COMPLETED, STARTED]
    await stage.api.eventually(lambda: stage.told(job) == [STARTED, COMPLETED])
    usage = await stage.api.usage()
    assert (usage.conversion_jobs, usage.conversion_seconds) == (1, 10)
    row = await stage.row(job)
    assert (row["owner"], row["attempt"], row["epoch"]) == (None, 2, 2)
    await stage.is_tidy()
    url = str(stage.settings["database_url"])
    if url.startswith("sqlite:///"):
        check_sqlite(Path(url.removeprefix("sqlite:///")))


async def test_during_the_download(stage: WorkerStage, clips: ClipFactory) -> None:
    """Issue section 4, encoding-and-safety 2.6 and case 30."""
    async with SteadySource(clips.clip(CLIP), hold_at=0.5) as source:
        first = await stage.worker()
        job = await stage.api.convert(source.url)
        await source.holding.wait()
        await stage.becomes(job, lambda seen: seen.progress.percent > 0)
        await first.kill()
        source.release()
        await stage.worker()
        done = await stage.completes(job)
    assert done.duration_sec == 10
    check_local(stage, job, SEGMENTS)
    await check_end(stage, job)


async def test_during_the_encode(stage: WorkerStage, clips: ClipFactory) -> None:
    """Issue section 4: FFmpeg dies with its worker, and the job runs again as soon as there is another one."""
    job = await stage.api.upload(clips.clip(CLIP), ffmpeg_preset="slower")
    first = await stage.worker()
    await stage.becomes(job, lambda seen: seen.progress.stage == "transcoding" and first.encodes)
    await first.kill()
    await stage.api.eventually(lambda: not first.encodes)
    await stage.worker()
    await stage.completes(job)
    check_local(stage, job, SEGMENTS)
    await check_end(stage, job)


@pytest.mark.parametrize("held", ["segment_002.ts", "prefix=master.m3u8"])
async def test_during_the_upload_and_right_before_the_end(
    stage: WorkerStage, clips: ClipFactory, s3: S3Server, proxy: FaultProxy, held: str
) -> None:
    """Case 30: with a segment half way up, and with everything in place but the row; same keys, nothing left over."""
    bucket = s3.new_bucket()
    proxy.faults.append(Fault(held, hang=True))
    first = await stage.worker()
    job = await stage.api.upload(clips.clip(CLIP), s3_config=bucket_behind(proxy.endpoint, s3, bucket))
    await proxy.hanging.wait()
    await first.kill()
    proxy.released.set()
    await stage.worker()
    done = await stage.completes(job)
    assert done.segments_count == SEGMENTS
    check_bucket(s3, bucket, SEGMENTS)
    await check_end(stage, job)
