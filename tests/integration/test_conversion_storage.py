"""Where conversions put their objects: request, project or operator storage, and what happens when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.errors import ServiceError
from server.ids import JobId
from tests.conftest import Eventually
from tests.integration.conversion_stage import Stage, answering, backend_stage, events_of, source
from tests.media import Clip, ClipFactory
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server, free_port

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually) as stage:
        yield stage


def request_config(server: S3Server, bucket: str, **fields: str) -> dict[str, str]:
    own = {
        "bucket": bucket,
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    }
    return own | fields


def keys_in(server: S3Server, bucket: str) -> list[str]:
    listed = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return sorted(entry["Key"] for entry in listed)


async def test_a_requests_bucket_takes_everything(stage: Stage, clips: ClipFactory, s3: S3Server) -> None:
    """Prefix, CDN addresses only, no secret anywhere.

    GN-11 (b), GN-12, VC-14, VC-16, VC-17, VC-18, VC-19, VC-20, VC-66.
    """
    sink = await stage.listen()
    bucket = s3.new_bucket()
    config = request_config(s3, bucket, prefix="/videos/my video", cdn_url="https://cdn.example.com/")
    config["secret_key"] = "marker-of-a-secret"
    done = await stage.finish(await stage.upload(clips.clip(), s3_config=config))
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    assert done.output_url == "https://cdn.example.com/videos/my%20video/master.m3u8"
    assert keys_in(s3, bucket) == [
        "videos/my video/360p/playlist.m3u8",
        "videos/my video/360p/segment_000.ts",
        "videos/my video/360p/segment_001.ts",
        "videos/my video/master.m3u8",
        "videos/my video/thumbnail.jpg",
    ]
    head = s3.client().head_object(Bucket=bucket, Key="videos/my video/master.m3u8")
    assert head["ContentType"] == "application/vnd.apple.mpegurl"
    assert stage.objects(done) == {}
    await stage.eventually(lambda: len(sink.received) == 2)
    shown = str(done) + str(events_of(sink))
    for hidden in (s3.endpoint, bucket, s3.access_key, "marker-of-a-secret"):
        assert hidden not in shown
    for file in stage.data_dir.glob("baxcloud.db*"):
        assert b"marker-of-a-secret" not in file.read_bytes()


async def test_project_defaults_and_what_a_request_lays_over_them(
    stage: Stage, clips: ClipFactory, s3: S3Server
) -> None:
    """GN-11 (a), GN-13, VC-13, VC-21: prefix and cdnUrl are laid over; a bucket of its own stands alone."""
    default, own = s3.new_bucket(), s3.new_bucket()
    await stage.set_s3(**request_config(s3, default, prefix="base", cdn_url="https://project.cdn"))
    plain = await stage.finish(await stage.upload(clips.clip()))
    assert plain.output_url == "https://project.cdn/base/master.m3u8"
    laid_over = await stage.finish(await stage.upload(clips.clip(), s3_config={"prefix": "other/"}))
    assert laid_over.output_url == "https://project.cdn/other/master.m3u8"
    alone = await stage.finish(await stage.upload(clips.clip(), s3_config=request_config(s3, own)))
    assert alone.output_url == f"{s3.endpoint}/{own}/master.m3u8"
    assert {key.split("/")[0] for key in keys_in(s3, default)} == {"base", "other"}
    assert "master.m3u8" in keys_in(s3, own)


async def test_without_any_storage_the_request_is_refused(
    data_dir: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """GN-11 (c), design section 13."""
    async with backend_stage(data_dir, eventually, work=False, storage_fallback="none") as stage:
        with pytest.raises(ServiceError) as refused:
            await stage.upload(clips.clip())
        assert (refused.value.rest_status, refused.value.field) == (400, "s3Config")
        assert stage.local_files() == []


async def test_a_missing_bucket_fails_the_job_with_its_cause(
    stage: Stage, clips: ClipFactory, s3: S3Server
) -> None:
    """B-64: UPLOAD_FAILED, one sentence naming the bucket, without credentials."""
    done = await stage.finish(
        await stage.upload(clips.clip(), s3_config=request_config(s3, "no-such-bucket-here"))
    )
    assert done.status == pb.ConversionJob.FAILED
    assert done.error_code == "UPLOAD_FAILED"
    assert "no-such-bucket-here" in done.error_message
    assert s3.secret_key not in done.error_message


async def test_a_failed_job_spares_what_an_earlier_one_made(
    stage: Stage, clips: ClipFactory, s3: S3Server
) -> None:
    """Keys carry no job id: a job that never wrote must not remove what lies under its prefix."""
    bucket = s3.new_bucket()
    config = request_config(s3, bucket, prefix="shared")
    assert (await stage.finish(await stage.upload(clips.clip(), s3_config=config))).output_url
    before = keys_in(s3, bucket)
    async with source(answering(404)) as url:
        done = await stage.finish(await stage.convert(url, s3_config=config))
    assert done.error_code == "DOWNLOAD_FAILED"
    assert keys_in(s3, bucket) == before


async def test_a_job_that_fails_before_its_first_write_spares_them_too(
    stage: Stage, clips: ClipFactory, s3: S3Server
) -> None:
    """Its source is readable at first, so the encode begins; nothing was put yet when it breaks off."""
    bucket = s3.new_bucket()
    config = request_config(s3, bucket, prefix="shared")
    assert (await stage.finish(await stage.upload(clips.clip(), s3_config=config))).output_url
    before = keys_in(s3, bucket)
    done = await stage.finish(await stage.upload(clips.truncated(0.1), s3_config=config, hls_time=10))
    assert done.error_code == "TRANSCODE_FAILED"
    assert keys_in(s3, bucket) == before


async def test_cancelling_a_waiting_job_never_fails_for_its_storage(
    data_dir: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """A job handed over after its first write is cancelled while its bucket is away: 204, the rest is logged."""
    async with backend_stage(data_dir, eventually, work=False) as stage:
        config = {
            "bucket": "gone",
            "endpoint": f"http://127.0.0.1:{free_port()}",
            "access_key": "k",
            "secret_key": "s",
        }
        job = await stage.upload(clips.clip(), s3_config=config)
        async with stage.backend.database.begin() as tx:
            claimed = await tx.jobs.claim(JobId(job.id), owner="dead", now=stage.backend.clock.now())
            assert claimed is not None
            await tx.jobs.update(claimed.id, epoch=claimed.epoch, result={"publishing": True})
            await tx.jobs.release(claimed.id, epoch=claimed.epoch, refund_attempt=True)
            await tx.commit()
        request = pb.CancelConversionJobRequest(job_id=job.id)
        await stage.conversions.cancel_conversion_job(request, stage.context())
        assert (await stage.get(job.id)).status == pb.ConversionJob.CANCELLED


async def test_a_failure_after_the_first_write_leaves_no_objects(
    stage: Stage, clips: ClipFactory, s3: S3Server
) -> None:
    """Partial objects are removed, others in the bucket stay."""
    bucket = s3.new_bucket()
    s3.client().put_object(Bucket=bucket, Key="shared/notes.txt", Body=b"mine")
    config = request_config(s3, bucket, prefix="shared")
    done = await stage.finish(await stage.upload(clips.truncated(), s3_config=config))
    assert done.error_code == "TRANSCODE_FAILED"
    assert keys_in(s3, bucket) == ["shared/notes.txt"]


async def test_audio_only_lands_in_each_presets_folder(stage: Stage, clips: ClipFactory) -> None:
    """Design section 13: each requested preset's folder holds audio; a thumbnail only with cover art."""
    done = await stage.finish(await stage.upload(clips.sound_only(), output_formats=["360p", "720p"]))
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    assert not done.HasField("thumbnail_url")
    assert {key.split("/")[0] for key in stage.objects(done)} == {"360p", "720p", "master.m3u8"}
    covered = await stage.finish(await stage.upload(clips.with_cover()))
    assert covered.thumbnail_url.endswith("/thumbnail.jpg")


async def test_segments_follow_hls_time(stage: Stage, clips: ClipFactory) -> None:
    """VC-11, VC-12, VC-46."""
    done = await stage.finish(await stage.upload(clips.clip(Clip(seconds=5)), hls_time=1))
    assert done.segments_count == 5
