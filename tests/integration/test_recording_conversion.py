"""A finished recording becomes a ladder: read from storage, never through an address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.domain.egress import (
    AudioEncoding,
    Egress,
    EgressPlan,
    EgressSecrets,
    EgressStatus,
    Encoding,
    FileOutput,
    Orders,
    Outputs,
    Surface,
    VideoEncoding,
)
from server.domain.egress_sources import RoomSource
from server.domain.recording import Recording
from server.errors import Code, ServiceError
from server.ids import new_egress_id, new_job_id, new_recording_id
from server.ports.storage import StorageTarget
from tests.conftest import Eventually
from tests.integration.conversion_stage import Stage, backend_stage, events_of
from tests.media import Clip, ClipFactory

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually, livekit_embedded=False) as stage:
        yield stage


async def recorded(stage: Stage, source: Path | None, **changes: Any) -> Recording:
    """A recording as its delivery leaves it; without `source` its object is missing."""
    backend, now = stage.backend, stage.backend.clock.now()
    egress_id, recording_id = new_egress_id(), new_recording_id()
    key = f"recordings/{recording_id}.mp4"
    if source is not None:
        target = StorageTarget(stage.project_id, egress_id, trusted=True)
        await backend.objects.store(target).put_file(key, source, content_type="video/mp4")
    plan = EgressPlan(
        "r", RoomSource(), Encoding(VideoEncoding(), AudioEncoding()), Outputs((FileOutput("mp4", key),))
    )
    egress = Egress(
        id=egress_id,
        project_id=stage.project_id,
        job_id=new_job_id(),
        room_name="r",
        room_id="RM_1",
        surface=Surface.BAXCLOUD,
        type="record",
        layout="grid",
        quality="720p",
        file_type="MP4",
        plan=plan,
        request={},
        created_at=now,
        started_at=1,
        updated_at=1,
        status=EgressStatus.COMPLETE,
        recording_id=recording_id,
    )
    recording = Recording(
        id=recording_id,
        project_id=stage.project_id,
        egress_id=egress_id,
        room_name="r",
        status="COMPLETED",
        file_type="MP4",
        layout="grid",
        quality="720p",
        created_at=now,
        started_at=now,
        ended_at=now + timedelta(seconds=3),
        key=key,
    )
    recording = replace(recording, **changes)
    async with backend.database.begin() as tx:
        await tx.egresses.add(egress, Orders(), EgressSecrets())
        await tx.recordings.add(recording)
        await tx.commit()
    return recording


async def convert(stage: Stage, recording_id: str, project: str | None = None) -> pb.ConversionJob:
    request = pb.ConvertRecordingRequest(
        recording_id=recording_id, output_formats=["360p"], ffmpeg_preset="ultrafast"
    )
    return await stage.conversions.convert_recording(request, stage.context(project))


async def test_a_recording_becomes_a_ladder(stage: Stage, clips: ClipFactory) -> None:
    """Design section 13: the fields of convert without `inputUrl`, and its events."""
    sink = await stage.listen()
    source = clips.clip(Clip(seconds=3, size="640x360"))
    before = source.read_bytes()
    recording = await recorded(stage, source)
    job = await convert(stage, recording.id)
    assert job.input_url == f"recording://{recording.id}"
    done = await stage.finish(job)
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    assert {"master.m3u8", "360p/playlist.m3u8"} <= set(stage.objects(done))
    assert stage.local_files() == []
    assert source.read_bytes() == before
    folder = stage.data_dir / "objects" / stage.project_id / recording.egress_id
    assert (folder / str(recording.key)).read_bytes() == before
    await stage.eventually(lambda: "video.conversion.completed" in [one["event"] for one in events_of(sink)])


async def test_a_file_that_is_gone_fails_the_job(stage: Stage) -> None:
    """B-64."""
    recording = await recorded(stage, None)
    done = await stage.finish(await convert(stage, recording.id))
    assert (done.status, done.error_code) == (pb.ConversionJob.FAILED, "DOWNLOAD_FAILED")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "STARTED", "key": None}, "RECORDING_NOT_COMPLETED"),
        ({"status": "FAILED", "key": None}, "RECORDING_NOT_COMPLETED"),
        ({"tracks": True, "key": None}, "RECORDING_HAS_NO_FILE"),
    ],
)
async def test_what_cannot_be_converted(stage: Stage, changes: Any, reason: str) -> None:
    recording = await recorded(stage, None, **changes)
    with pytest.raises(ServiceError) as refused:
        await convert(stage, recording.id)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, reason)


async def test_unknown_and_foreign_recordings(stage: Stage) -> None:
    recording = await recorded(stage, None)
    for recording_id, project in (("rec_nobody", None), (recording.id, "cl_other")):
        with pytest.raises(ServiceError) as refused:
            await convert(stage, recording_id, project)
        assert refused.value.code is Code.NOT_FOUND
