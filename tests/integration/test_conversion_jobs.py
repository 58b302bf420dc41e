"""Conversion jobs from request to objects, events and usage, on real media in the data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format

from adapters.ffmpeg.audit import audit, directory_reader
from generated.baxcloud.v1 import project_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.context import CallContext, Caller, CallerKind
from server.domain.project import Usage
from server.errors import Code, ServiceError
from tests.conftest import Eventually
from tests.integration.conversion_stage import (
    Stage,
    answering,
    backend_stage,
    events_of,
    serving_file,
    source,
)
from tests.media import Clip, ClipFactory

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually) as stage:
        yield stage


@pytest.fixture
async def idle(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    """A backend whose worker has not begun."""
    async with backend_stage(data_dir, eventually, work=False) as stage:
        yield stage


async def test_a_url_becomes_an_audited_ladder(stage: Stage, clips: ClipFactory) -> None:
    """Job, objects, webhooks and usage of one conversion.

    VC-01, VC-42, VC-43, VC-44, VC-45, VC-46, VC-47, VC-61, VC-62, VC-63, VC-64, VC-65, VC-69, GN-08, WB-05,
    WB-06, WB-07, WB-25, WB-28, WB-29, WB-30, WB-31, WB-32.
    """
    sink = await stage.listen()
    metadata = {"userId": "u_42", "n": 7, "nested": [None, {"a": 1.5}]}
    async with source(serving_file(clips.clip(Clip(seconds=5, size="640x360")))) as url:
        job = await stage.convert(
            url,
            output_formats=["360p", "480p"],
            metadata=json_format.ParseDict(metadata, pb.ConversionJob().metadata),
        )
        assert job.status == pb.ConversionJob.PENDING
        states = await stage.watch(job)
    done = states[-1]

    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    assert (done.duration_sec, done.segments_count, done.cost_cents) == (5, 3, 1)
    percents = [state.progress.percent for state in states if state.HasField("progress")]
    assert percents == sorted(percents)
    objects = stage.objects(done)
    expected = {"master.m3u8", "thumbnail.jpg"} | {
        f"{name}/{file}"
        for name in ("360p", "480p")
        for file in ("playlist.m3u8", "segment_000.ts", "segment_001.ts", "segment_002.ts")
    }
    assert set(objects) == expected
    assert objects["thumbnail.jpg"].read_bytes()[:3] == b"\xff\xd8\xff"
    folder = objects["master.m3u8"].parent
    assert audit(directory_reader(folder), renditions=["360p", "480p"]) == []
    assert done.output_url.endswith("/master.m3u8")
    assert set(done.rendition_urls) == {"360p", "480p"}

    await stage.eventually(lambda: len(sink.received) == 2)
    started, completed = events_of(sink)
    assert [started["event"], completed["event"]] == [
        "video.conversion.started",
        "video.conversion.completed",
    ]
    data = completed["data"]
    assert data["outputUrl"] == done.output_url
    assert data["renditionUrls"] == dict(done.rendition_urls)
    assert data["metadata"] == completed["metadata"] == metadata
    assert (data["durationSec"], data["segmentsCount"], data["costCents"]) == (5, 3, 1)
    assert "categorization" not in data
    assert await stage.usage() == Usage(conversion_jobs=1, conversion_seconds=5, conversion_cents=1)
    await stage.eventually(lambda: stage.local_files() == [])


async def test_it_plays_before_it_is_done(stage: Stage, clips: ClipFactory) -> None:
    """The master and EVENT playlists are in place, and the job shows them, while segments are still to come."""
    job = await stage.upload(
        clips.clip(Clip(seconds=20, size="640x360")), ffmpeg_preset="veryslow", hls_time=1
    )
    seen: list[tuple[bytes, bytes]] = []
    request = pb.WatchConversionJobRequest(job_id=job.id)
    async for state in stage.conversions.watch_conversion_job(request, stage.context()):
        if state.status == pb.ConversionJob.PROCESSING and state.output_url:
            assert state.HasField("playable_at")
            objects = stage.objects(job)
            seen.append((objects["master.m3u8"].read_bytes(), objects["360p/playlist.m3u8"].read_bytes()))
    assert seen, "the job was never playable while it ran"
    master, playlist = seen[0]
    assert b"360p/playlist.m3u8" in master
    assert b"#EXT-X-PLAYLIST-TYPE:EVENT" in playlist
    assert b"#EXT-X-ENDLIST" not in playlist
    assert b"#EXT-X-PLAYLIST-TYPE:VOD" in stage.objects(job)["360p/playlist.m3u8"].read_bytes()
    done = await stage.get(job.id)
    assert done.playable_at.ToDatetime() < done.completed_at.ToDatetime()


async def test_an_upload_shows_its_name_and_leaves_no_copy(stage: Stage, clips: ClipFactory) -> None:
    """VC-28, B-59: the file name, never a server path; the upload is gone when its job has ended."""
    job = await stage.upload(clips.clip(), filename="holiday (1).mp4")
    assert job.input_url == "upload://holiday (1).mp4"
    done = await stage.finish(job)
    assert done.status == pb.ConversionJob.COMPLETED
    await stage.eventually(lambda: stage.local_files() == [])


async def test_wanted_vision_without_a_model_fails_alone(stage: Stage, clips: ClipFactory) -> None:
    """B-25, VC-23, VC-24, WB-33, WB-34: the conversion completes, each AI event says why it failed."""
    sink = await stage.listen()
    job = await stage.upload(clips.clip(), categorize=True, moderate=True)
    done = await stage.finish(job)
    assert done.status == pb.ConversionJob.COMPLETED
    assert not done.HasField("moderation")
    await stage.eventually(lambda: len(sink.received) == 4)
    events = {event["event"]: event["data"] for event in events_of(sink)}
    assert set(events) == {
        "video.conversion.started",
        "video.conversion.completed",
        "categorization.failed",
        "moderation.failed",
    }
    for name in ("categorization.failed", "moderation.failed"):
        assert events[name]["jobId"] == job.id
        assert events[name]["errorCode"] == "AI_MODEL_UNAVAILABLE"
    assert "moderation" not in events["video.conversion.completed"]


async def test_a_refused_download_fails_with_its_status(stage: Stage) -> None:
    """VC-50, VC-70, VC-73, WB-08, WB-36, WB-37: 1 + 3 requests, the exact text, no objects, no other terminal event."""
    sink = await stage.listen()
    async with source(answering(403)) as url:
        done = await stage.finish(await stage.convert(url))
    assert done.status == pb.ConversionJob.FAILED
    assert done.error_code == "DOWNLOAD_FAILED"
    assert done.error_message == "HTTP 403 fetching input URL after 3 retries"
    assert done.HasField("failed_at")
    assert not done.HasField("completed_at")
    assert stage.objects(done) == {}
    await stage.eventually(lambda: len(sink.received) == 2)
    failed = events_of(sink)[1]
    assert failed["event"] == "video.conversion.failed"
    assert failed["data"]["errorCode"] == "DOWNLOAD_FAILED"
    assert await stage.usage() == Usage()
    await stage.eventually(lambda: stage.local_files() == [])


@pytest.mark.parametrize("kind", ["html", "empty", "random", "hls", "ffconcat", "dash", "png"])
async def test_what_is_no_media_is_refused(stage: Stage, clips: ClipFactory, kind: str) -> None:
    """B-33, encoding-and-safety 2.8 cases 1, 13, 14: decided by content, without a second attempt."""
    async with source(serving_file(clips.not_media()[kind])) as url:
        done = await stage.finish(await stage.convert(url))
    assert done.status == pb.ConversionJob.FAILED
    assert done.error_code in ("UNSUPPORTED_FORMAT", "DOWNLOAD_FAILED"), done.error_message
    assert str(stage.data_dir) not in done.error_message
    assert stage.objects(done) == {}


async def test_a_truncated_file_fails_and_takes_its_objects_along(stage: Stage, clips: ClipFactory) -> None:
    """Case 3: FFmpeg ends with status 0, the job does not complete; what was published is removed again."""
    done = await stage.finish(await stage.upload(clips.truncated()))
    assert done.status == pb.ConversionJob.FAILED
    assert done.error_code == "TRANSCODE_FAILED"
    assert not done.output_url
    assert stage.objects(done) == {}
    await stage.eventually(lambda: stage.local_files() == [])


async def test_only_pending_jobs_can_be_cancelled(idle: Stage, clips: ClipFactory) -> None:
    """VC-51, VC-52, VC-67, VC-71, B-29: the upload goes, no event is sent, nothing runs afterwards."""
    sink = await idle.listen()
    cancelled = await idle.upload(clips.clip())
    kept = await idle.upload(clips.clip())
    request = pb.CancelConversionJobRequest(job_id=cancelled.id)
    await idle.conversions.cancel_conversion_job(request, idle.context())
    assert (await idle.get(cancelled.id)).status == pb.ConversionJob.CANCELLED
    assert [path.name for path in idle.local_files()] == [kept.id]

    await idle.start_worker()
    assert (await idle.finish(kept)).status == pb.ConversionJob.COMPLETED
    for job_id in (kept.id, cancelled.id):
        with pytest.raises(ServiceError) as refused:
            await idle.conversions.cancel_conversion_job(
                pb.CancelConversionJobRequest(job_id=job_id), idle.context()
            )
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert refused.value.reason == "JOB_NOT_CANCELLABLE"
    await idle.eventually(lambda: len(sink.received) == 2)
    assert {event["data"]["jobId"] for event in events_of(sink)} == {kept.id}
    assert idle.objects(cancelled) == {}


async def test_another_projects_jobs_are_not_there(idle: Stage, clips: ClipFactory) -> None:
    """GN-07, VC-36: get, watch, cancel and list answer as for an unknown id."""
    admin = CallContext("t", "t", "r", Caller(CallerKind.ADMIN, None), {})
    other = await idle.projects.create_project(project_pb2.CreateProjectRequest(name="other"), admin)
    job = await idle.upload(clips.clip())
    foreign = idle.context(other.id)
    calls: tuple[Callable[[str], Awaitable[object]], ...] = (
        lambda job_id: idle.conversions.get_conversion_job(
            pb.GetConversionJobRequest(job_id=job_id), foreign
        ),
        lambda job_id: idle.conversions.cancel_conversion_job(
            pb.CancelConversionJobRequest(job_id=job_id), foreign
        ),
    )
    for call in calls:
        messages = []
        for job_id in (job.id, "cm" + "x" * 23):
            with pytest.raises(ServiceError) as refused:
                await call(job_id)
            assert refused.value.code is Code.NOT_FOUND
            messages.append(refused.value.message.replace(job_id, "ID"))
        assert messages[0] == messages[1]
    listed = await idle.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(), foreign)
    assert (list(listed.items), listed.total) == ([], 0)


async def test_lists_are_paged_and_filtered(idle: Stage, clips: ClipFactory) -> None:
    """VC-36, VC-37, VC-38, VC-39, VC-40: newest first, `total` over all pages, the size never above 100."""
    jobs = [await idle.upload(clips.clip()) for _ in range(3)]
    ctx = idle.context()
    page = await idle.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(page_size=2), ctx)
    assert [job.id for job in page.items] == [jobs[2].id, jobs[1].id]
    assert (page.total, page.page, page.page_size) == (3, 1, 2)
    rest = await idle.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(page=2, limit=2), ctx)
    assert [job.id for job in rest.items] == [jobs[0].id]
    plain = await idle.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(), ctx)
    assert plain.page_size == 20
    large = await idle.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(page_size=101), ctx)
    assert large.page_size == 100
    failed = pb.ListConversionJobsRequest(status=pb.ConversionJob.FAILED)
    assert (await idle.conversions.list_conversion_jobs(failed, ctx)).total == 0


async def test_what_is_left_out_is_said(stage: Stage, clips: ClipFactory) -> None:
    """encoding-and-safety 1.6, multiple streams: one picture and one sound are converted, the job tells of the rest."""
    done = await stage.finish(await stage.upload(clips.many_streams()))
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    assert list(done.warnings) == ["1 more video stream was left out", "1 more audio stream was left out"]


async def test_a_repeated_key_finds_the_job_even_if_its_answer_was_lost(idle: Stage) -> None:
    """encoding-and-safety 2.8 case 32: the process died after the job was made and before its answer was stored."""
    ctx = replace(idle.context(), idempotency_key="order-7")
    request = pb.CreateConversionJobRequest(input_url="http://127.0.0.1:9/clip.mp4")
    first = await idle.conversions.create_conversion_job(request, ctx)
    again = await idle.conversions.create_conversion_job(request, ctx)
    assert again.id == first.id
    with pytest.raises(ServiceError) as refused:
        await idle.conversions.create_conversion_job(
            pb.CreateConversionJobRequest(input_url="http://127.0.0.1:9/other.mp4"), ctx
        )
    assert refused.value.reason == "IDEMPOTENCY_CONFLICT"
    other_key = await idle.conversions.create_conversion_job(request, replace(ctx, idempotency_key="order-8"))
    assert other_key.id != first.id


async def test_an_oversized_upload_leaves_nothing(
    data_dir: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """VC-29, B-60: refused while it arrives."""
    async with backend_stage(data_dir, eventually, work=False, max_upload_bytes=1000) as stage:
        with pytest.raises(ServiceError) as refused:
            await stage.upload(clips.clip())
        assert refused.value.rest_status == 413
        assert refused.value.rest_code == "FILE_TOO_LARGE"
        assert stage.local_files() == []
