"""Conversions whose S3 is overloaded, gone, silent or suddenly closed to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.storage.s3_client import S3Options
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.ground import Patience
from server.ids import JobId
from tests.conftest import Eventually
from tests.faults.worker_stage import bucket_behind, check_bucket
from tests.integration.conversion_stage import Stage, backend_stage, events_of
from tests.media import Clip, ClipFactory
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, FaultProxy, error

pytestmark = pytest.mark.timeout(120)

IMPATIENT = Patience(
    storage=S3Options(connect_timeout=1, read_timeout=1, attempts=2),
    stall_timeout_sec=20,
    retry_delay_sec=0.2,
)
SECRET = "storage-secret-marker"


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually, patience=IMPATIENT) as stage:
        yield stage


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture
def config(s3: S3Server, bucket: str, proxy: FaultProxy) -> dict[str, str]:
    return bucket_behind(proxy.endpoint, s3, bucket) | {"secret_key": SECRET}


def keys_in(s3: S3Server, bucket: str) -> list[str]:
    client = s3.client()
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    client.close()
    return [entry["Key"] for entry in listed]


async def attempts_of(stage: Stage, job: pb.ConversionJob) -> int:
    async with stage.backend.database.read() as tx:
        row = await tx.jobs.get(None, JobId(job.id))
    assert row is not None
    return row.attempt


async def check_failed(stage: Stage, done: pb.ConversionJob, *, attempts: int) -> None:
    """UPLOAD_FAILED, told once, with nothing kept on this machine."""
    assert (done.status, done.error_code) == (pb.ConversionJob.FAILED, "UPLOAD_FAILED"), done.error_message
    assert SECRET not in str(done)
    assert not done.output_url
    assert await attempts_of(stage, done) == attempts, done.error_message
    sink = stage.sinks[0]
    await stage.eventually(lambda: len(sink.received) >= 2)
    assert [event["event"] for event in events_of(sink)] == [
        "video.conversion.started",
        "video.conversion.failed",
    ]
    await stage.eventually(lambda: stage.local_files() == [])


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("PUT", times=5, skip=2, reply=error(503, "SlowDown")), id="overloaded"),
        pytest.param(Fault("PUT", times=5, skip=2, hang=True), id="silent"),
        pytest.param(Fault("GET", times=3, reply=error(500, "InternalError")), id="broken while verifying"),
        pytest.param(Fault("PUT", times=3, lose=True), id="answers lost"),
    ],
)
async def test_a_storage_that_recovers(
    stage: Stage,
    clips: ClipFactory,
    s3: S3Server,
    bucket: str,
    config: dict[str, str],
    proxy: FaultProxy,
    fault: Fault,
) -> None:
    """Case 34: more faults than one call's tries survive; a later attempt completes the job, once, and whole."""
    sink = await stage.listen()
    proxy.faults.append(fault)
    done = await stage.finish(await stage.upload(clips.clip(Clip(seconds=5)), s3_config=config))
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    check_bucket(s3, bucket, 3)
    await stage.eventually(lambda: len(sink.received) == 2)
    assert [event["event"] for event in events_of(sink)] == [
        "video.conversion.started",
        "video.conversion.completed",
    ]


async def test_a_storage_that_dies_for_good(
    stage: Stage, clips: ClipFactory, s3: S3Server, bucket: str, config: dict[str, str], proxy: FaultProxy
) -> None:
    """Issue section 8, case 34: after three attempts the job says which bucket did what."""
    await stage.listen()
    proxy.faults.append(Fault("/", times=10_000, skip=2, reply=error(503, "ServiceUnavailable")))
    done = await stage.finish(await stage.upload(clips.clip(), s3_config=config))
    await check_failed(stage, done, attempts=3)
    assert done.error_message == f"S3 bucket {bucket}: upload: ServiceUnavailable, HTTP 503"


async def test_a_storage_that_never_answers_again(
    stage: Stage, clips: ClipFactory, bucket: str, config: dict[str, str], proxy: FaultProxy
) -> None:
    """Case 34: a connection that stays open and silent ends by its time limit."""
    await stage.listen()
    proxy.faults.append(Fault("/", times=10_000, hang=True))
    done = await stage.finish(await stage.upload(clips.clip(), s3_config=config))
    await check_failed(stage, done, attempts=3)
    assert done.error_message == f"S3 bucket {bucket}: upload: no answer from the storage in time"


async def test_a_storage_that_is_not_there(
    stage: Stage, clips: ClipFactory, bucket: str, config: dict[str, str]
) -> None:
    """The address takes no connections."""
    await stage.listen()
    config["endpoint"] = "http://127.0.0.1:9"
    done = await stage.finish(await stage.upload(clips.clip(), s3_config=config))
    await check_failed(stage, done, attempts=3)
    assert done.error_message == f"S3 bucket {bucket}: upload: the storage could not be reached"


async def test_access_taken_away_midway(
    stage: Stage, clips: ClipFactory, s3: S3Server, bucket: str, config: dict[str, str], proxy: FaultProxy
) -> None:
    """Case 34: permanent at once; what was written before is removed as far as the storage lets us."""
    await stage.listen()
    proxy.faults.append(Fault("segment_001.ts", times=10_000, reply=error(403, "AccessDenied")))
    done = await stage.finish(await stage.upload(clips.clip(Clip(seconds=5)), s3_config=config))
    await check_failed(stage, done, attempts=1)
    assert done.error_message == f"S3 bucket {bucket}: upload: AccessDenied (access denied), HTTP 403"
    assert keys_in(s3, bucket) == []


async def test_a_slow_storage_is_no_stalled_encoder(
    data_dir: Path,
    eventually: Eventually,
    clips: ClipFactory,
    s3: S3Server,
    bucket: str,
    config: dict[str, str],
    proxy: FaultProxy,
) -> None:
    """While uploads hold the encoder back its watchdog waits: the job waits for the storage, in one attempt."""
    # The watchdog leaves FFmpeg time to start on a busy machine; the uploads take twice as long.
    patience = Patience(
        storage=S3Options(read_timeout=3, attempts=4), stall_timeout_sec=3, retry_delay_sec=0.2
    )
    proxy.faults.append(Fault("PUT", times=14, hang=True))
    async with backend_stage(data_dir, eventually, patience=patience) as stage:
        clip = clips.clip(Clip(seconds=12))
        done = await stage.finish(await stage.upload(clip, hls_time=1, s3_config=config))
        assert await attempts_of(stage, done) == 1
    assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    check_bucket(s3, bucket, 12)
