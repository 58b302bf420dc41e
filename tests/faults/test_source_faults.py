"""Sources that stall or break off, and a data directory that fills up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.http.download import FetchLimits
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.domain.job import JobStatus
from server.errors import Code, ServiceError
from server.ground import Patience
from server.ids import JobId
from tests.conftest import Eventually
from tests.faults.databases import check_sqlite
from tests.faults.disks import fill
from tests.faults.sources import SteadySource
from tests.integration.conversion_stage import Stage, backend_stage, serving_file, source
from tests.integration.http_sources import Request, head
from tests.media import Clip, ClipFactory

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
IMPATIENT = Patience(
    source=FetchLimits(answer_sec=1, rate_window_sec=0.5), retry_delay_sec=0.2, disk_full_delay_sec=0.5
)


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually, patience=IMPATIENT) as stage:
        yield stage


async def silent(request: Request) -> None:
    """Takes the request and says nothing."""
    await request.writer.wait_closed()


async def trickling(request: Request) -> None:
    """Promises a file and stops after a byte."""
    await request.send(head(200, {"Content-Length": "1000000"}) + b"x")
    await request.writer.wait_closed()


@pytest.mark.parametrize("respond", [silent, trickling])
async def test_a_source_that_stalls(stage: Stage, respond: object) -> None:
    """B-64, case 20: DOWNLOAD_TIMEOUT after 1 + 3 tries, without a second attempt at the job."""
    async with source(respond) as url:  # type: ignore[arg-type]
        done = await stage.finish(await stage.convert(url))
    assert (done.status, done.error_code) == (pb.ConversionJob.FAILED, "DOWNLOAD_TIMEOUT")
    assert done.error_message == "timed out fetching input URL after 3 retries"
    await stage.eventually(lambda: stage.local_files() == [])


async def test_a_download_over_its_time_limit(data_dir: Path, eventually: Eventually) -> None:
    """B-64: the limit holds for all tries together."""
    async with backend_stage(data_dir, eventually, download_timeout_sec=0.5) as stage, source(silent) as url:
        done = await stage.finish(await stage.convert(url))
    assert done.error_code == "DOWNLOAD_TIMEOUT"
    assert done.error_message == "timed out fetching input URL after 0 retries"


async def test_a_source_that_breaks_off_is_continued(stage: Stage, clips: ClipFactory) -> None:
    """Case 20: a reset at half, then the rest by Range; no byte twice."""
    path = clips.clip(Clip(seconds=5))
    async with SteadySource(path, hold_at=0.5, resets=True) as steady:
        job = await stage.convert(steady.url)
        # What was not read yet is lost with the connection, which may be all of it.
        await stage.eventually(lambda: any(one.stat().st_size for one in stage.local_files()))
        steady.release()
        done = await stage.finish(job)
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    first, *others = steady.ranges
    assert first is None
    assert others
    for wanted in others:
        assert wanted is not None
        assert 0 < int(wanted.removeprefix("bytes=").rstrip("-")) <= path.stat().st_size // 2
    assert done.duration_sec == 5


# --- a full disk


@pytest.fixture
async def cramped(small_disk: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    """Database, uploads, work and objects on the small disk."""
    async with backend_stage(small_disk / "bax", eventually, patience=IMPATIENT, min_free_bytes=0) as stage:
        yield stage


async def check_others_are_fine(stage: Stage, clips: ClipFactory) -> None:
    """With room again the next job completes, and the database is whole."""
    done = await stage.finish(await stage.upload(clips.clip()))
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    check_sqlite(stage.data_dir / "baxcloud.db")


async def test_the_disk_is_full_while_downloading(cramped: Stage, clips: ClipFactory) -> None:
    """Case 33: retryable; after the last attempt the job names the disk, and nothing is left."""
    path = clips.clip(Clip(seconds=3))
    ballast = fill(cramped.data_dir, leave=MIB)

    async def endless(request: Request) -> None:
        await request.send(head(200, {}) + path.read_bytes())
        while True:
            await request.send(bytes(64 * 1024))

    async with source(endless) as url:
        done = await cramped.finish(await cramped.convert(url))
    assert (done.status, done.error_code) == (pb.ConversionJob.FAILED, "INTERNAL"), done.error_message
    assert done.error_message == "the server's disk is full"
    await cramped.eventually(lambda: cramped.local_files() == [])
    ballast.unlink()
    await check_others_are_fine(cramped, clips)


async def test_the_disk_has_room_again_for_the_next_attempt(cramped: Stage, clips: ClipFactory) -> None:
    """Case 33: the job waits instead of failing, and completes."""
    ballast = fill(cramped.data_dir, leave=400_000)
    async with source(serving_file(clips.clip(Clip(seconds=20)))) as url:
        job = await cramped.convert(url)

        async def waits() -> bool:
            async with cramped.backend.database.read() as tx:
                row = await tx.jobs.get(None, JobId(job.id))
            assert row is not None
            assert not row.status.is_final
            # The second wait is as good as the first, which a stall may hide.
            return row.status is JobStatus.PENDING and row.attempt >= 1

        await cramped.eventually(waits)
        ballast.unlink()
        done = await cramped.finish(job)
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message


async def test_the_disk_is_full_while_encoding(
    small_disk: Path, tmp_path: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """Case 33: FFmpeg's status or our own copy fails; the cause is the disk either way, and no object stays."""
    noise = "geq=lum='random(1)*255':cb=128:cr=128"
    clip = clips.clip(Clip(seconds=4, size="640x360", picture="color", filters=noise))
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    async with backend_stage(
        small_disk / "bax", eventually, work=False, patience=IMPATIENT, min_free_bytes=0, database_url=url
    ) as stage:
        job = await stage.upload(clip, output_formats=["480p", "360p"], hls_time=1)
        ballast = fill(stage.data_dir, leave=500_000)
        await stage.start_worker()
        done = await stage.finish(job)
        assert done.status == pb.ConversionJob.FAILED
        assert "full" in done.error_message, done.error_message
        assert stage.objects(job) == {}
        await stage.eventually(lambda: stage.local_files() == [])
        ballast.unlink()
        done = await stage.finish(await stage.upload(clips.clip()))
        assert done.status == pb.ConversionJob.COMPLETED, done.error_message


async def test_the_database_survives_a_full_disk(cramped: Stage, clips: ClipFactory) -> None:
    """Case 33: a write that finds no room is refused as a passing fault, and the next one with room succeeds."""
    ballast = fill(cramped.data_dir, leave=0)

    async def create_many() -> None:
        for _ in range(1000):
            await cramped.convert("http://127.0.0.1:9/clip.mp4")

    with pytest.raises(ServiceError) as refused:
        await create_many()
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.retry_after_sec
    ballast.unlink()
    await check_others_are_fine(cramped, clips)


async def test_conversions_wait_for_room(data_dir: Path, eventually: Eventually, clips: ClipFactory) -> None:
    """BAX_MIN_FREE_BYTES holds for conversions as well."""
    async with (
        backend_stage(data_dir, eventually, patience=IMPATIENT, min_free_bytes=1 << 60) as stage,
        source(serving_file(clips.clip())) as url,
    ):
        done = await stage.finish(await stage.convert(url))
    assert (done.error_code, done.error_message) == ("INTERNAL", "the server's disk is full")


async def test_the_disk_fills_during_an_upload(cramped: Stage, clips: ClipFactory) -> None:
    """Case 33: unavailable with a time to come back; the half file is gone."""
    ballast = fill(cramped.data_dir, leave=MIB)

    async def parts() -> AsyncIterator[pb.UploadVideoRequest]:
        for _ in range(64):
            yield pb.UploadVideoRequest(chunk=bytes(MIB // 4))

    with pytest.raises(ServiceError) as refused:
        await cramped.conversions.upload_video(parts(), cramped.context())
    assert (refused.value.code, refused.value.retry_after_sec) == (Code.UNAVAILABLE, 60)
    assert refused.value.message == "the server's disk is too full for this upload"
    assert cramped.local_files() == []
    ballast.unlink()
    await check_others_are_fine(cramped, clips)


async def test_little_disk_is_told_before_the_upload(
    data_dir: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """BAX_MIN_FREE_BYTES: unavailable with a time to come back, before a byte is written."""
    async with backend_stage(data_dir, eventually, work=False, min_free_bytes=1 << 60) as stage:
        with pytest.raises(ServiceError) as refused:
            await stage.upload(clips.clip())
        assert (refused.value.code, refused.value.retry_after_sec) == (Code.UNAVAILABLE, 60)
        assert refused.value.rest_status == 503
        assert stage.local_files() == []
