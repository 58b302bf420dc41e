"""Deliveries to real storages: the data directory and S3 that fails, lies, or is not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from adapters.storage.s3_client import S3Options
from server.domain.egress import (
    Egress,
    EgressStatus,
    FileOutput,
    Outputs,
    SegmentsOutput,
    StorageChoice,
    Surface,
)
from server.domain.job import JobStatus
from server.ports.recorder import Active, Joined, SegmentWritten
from server.ports.storage import StorageTarget
from tests.conftest import Eventually
from tests.contract.egress_samples import segment_written
from tests.contract.egress_script import at
from tests.contract.egress_stage import PROJECT, EgressStage
from tests.servers.cloud import (
    ACCOUNT,
    ACCOUNT_KEY,
    Azurite,
    GcsLike,
    azurite_server,
    gcs_server,
    service_account,
)
from tests.servers.s3 import S3Server, free_port
from tests.servers.s3_faults import Fault, FaultProxy, error, fault_proxy
from tests.servers.versitygw import versitygw_server

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    # versitygw is built on first use, which takes minutes.
    pytest.mark.timeout(1000),
]
OPTIONS = S3Options(part_size=5 << 20, connect_timeout=2, read_timeout=5, attempts=1)
MP4 = Outputs(files=(FileOutput("mp4", "calls/{room_name}"),))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(s3.endpoint, keeps_host=True) as running:
        yield running


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually, s3_options=OPTIONS).open()
    yield stage
    await stage.close()


def choice(server: S3Server, bucket: str, *, endpoint: str = "", secret: str = "") -> StorageChoice:
    return StorageChoice(
        "s3",
        {
            "access_key": server.access_key,
            "secret": secret or server.secret_key,
            "region": server.region,
            "endpoint": endpoint or server.endpoint,
            "bucket": bucket,
            "force_path_style": True,
        },
    )


async def captured(stage: EgressStage, storage: StorageChoice, content: str = "media") -> Egress:
    egress = await stage.start(MP4, surface=Surface.LIVEKIT, storage=storage)
    claim = await stage.claim(egress)
    (await stage.recorders.number(0)).records(4, at=at(0), content=content)
    await stage.becomes(egress, EgressStatus.ACTIVE)
    await stage.stop(egress)
    await claim.ends()
    return egress


def read(server: S3Server, bucket: str) -> dict[str, bytes]:
    client = server.client()
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {one["Key"]: client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}


async def test_a_requests_own_bucket(stage: EgressStage, s3: S3Server) -> None:
    """Sections 2.2, 2.6, 3.2, 3.5: the template is filled, LiveKit's manifest lies beside the file."""
    bucket = s3.new_bucket()
    egress = await captured(stage, choice(s3, bucket), "x" * 7_000_000)
    await stage.deliver()
    done = await stage.becomes(egress, EgressStatus.COMPLETE)
    (file,) = done.results.files
    assert file.filename == "calls/my-live-room.mp4"
    assert file.location == f"{s3.endpoint}/{bucket}/calls/my-live-room.mp4"
    assert file.size == 7_000_000
    objects = read(s3, bucket)
    assert set(objects) == {"calls/my-live-room.mp4", f"calls/{egress.id}.json"}
    assert done.results.manifest_location == f"{s3.endpoint}/{bucket}/calls/{egress.id}.json"
    assert json.loads(objects[f"calls/{egress.id}.json"]) == {
        "egress_id": egress.id,
        "room_id": "RM_first",
        "room_name": "my-live-room",
        "started_at": at(0),
        "ended_at": at(60),
        "files": [{"filename": file.filename, "location": file.location}],
    }
    ours = (await stage.recording(egress)).manifest
    assert ours is not None
    assert ours["objects"] == [
        {
            "key": file.filename,
            "size": 7_000_000,
            "sha256": hashlib.sha256(b"x" * 7_000_000).hexdigest(),
            "contentType": "video/mp4",
        }
    ]


async def test_objects_carry_what_was_asked_for(stage: EgressStage, s3: S3Server) -> None:
    """LK-101, LK-102: metadata, tags, and how browsers take it; LiveKit's default is `inline`."""
    bucket = s3.new_bucket()
    wanted = choice(s3, bucket)
    extra = {"metadata": {"meeting": "weekly"}, "tagging": "team=red&keep=1"}
    egress = await captured(stage, replace(wanted, config=wanted.config | extra))  # type: ignore[operator]
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.COMPLETE)
    client = s3.client()
    head = client.head_object(Bucket=bucket, Key="calls/my-live-room.mp4")
    assert (head["Metadata"], head["ContentDisposition"]) == ({"meeting": "weekly"}, "inline")
    assert head["ContentType"] == "video/mp4"
    tags = client.get_object_tagging(Bucket=bucket, Key="calls/my-live-room.mp4")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "red", "keep": "1"}


@pytest.mark.parametrize("path_style", [True, False])
async def test_the_bucket_in_the_path_or_in_the_host(
    stage: EgressStage, s3: S3Server, *, path_style: bool
) -> None:
    """LK-100: told as the caller's clients must ask for it; the server itself asks by path wherever it is not AWS."""
    bucket = s3.new_bucket()
    wanted = choice(s3, bucket)
    own = {"force_path_style": path_style}
    egress = await captured(stage, replace(wanted, config=wanted.config | own))  # type: ignore[operator]
    await stage.deliver()
    done = await stage.becomes(egress, EgressStatus.COMPLETE)
    host = s3.endpoint.removeprefix("http://")
    place = f"http://{host}/{bucket}" if path_style else f"https://{bucket}.{host}"
    assert done.results.files[0].location == f"{place}/calls/my-live-room.mp4"
    assert read(s3, bucket)["calls/my-live-room.mp4"] == b"media"


async def test_an_outage_only_delays_it(stage: EgressStage, s3: S3Server, proxy: FaultProxy) -> None:
    """Issue section 5: retried for as long as it takes; until then the file stays on disk."""
    bucket = s3.new_bucket()
    proxy.faults.append(Fault("PUT", times=3, reply=error(503, "SlowDown")))
    egress = await captured(stage, choice(s3, bucket, endpoint=proxy.endpoint))
    for _ in range(3):
        claim = await stage.begin_delivery()
        await claim.ends()
        assert (await stage.job(claim.run.job.id)).status is JobStatus.PENDING
        assert (await stage.egress(egress)).status is EgressStatus.ENDING
        assert (stage.files / "egress" / egress.id / "final.mp4").exists()
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.COMPLETE)
    assert read(s3, bucket)["calls/my-live-room.mp4"] == b"media"
    assert not (stage.files / "egress" / egress.id).exists()


async def test_what_arrives_otherwise_is_sent_again(
    stage: EgressStage, s3: S3Server, proxy: FaultProxy
) -> None:
    """Issue section 5: nothing local is removed before the storage has what was sent, by its checksum."""
    bucket = s3.new_bucket()
    proxy.flips = 1
    egress = await captured(stage, choice(s3, bucket, endpoint=proxy.endpoint))
    await stage.deliver()
    assert (await stage.egress(egress)).status is EgressStatus.ENDING
    assert read(s3, bucket) == {}
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.COMPLETE)
    assert read(s3, bucket)["calls/my-live-room.mp4"] == b"media"


async def test_the_backup_takes_what_the_first_choice_does_not(
    database: SqlDatabase, tmp_path: Path, eventually: Eventually, s3: S3Server
) -> None:
    """Section 2.6: a fault that will not pass at once, an outage after a while."""
    bucket, spare = s3.new_bucket(), s3.new_bucket()
    backup = s3.config(bucket=spare, region=s3.region)
    stage = await EgressStage(
        database, tmp_path / "data", eventually, s3_options=OPTIONS, backup=backup
    ).open()
    try:
        egress = await captured(stage, choice(s3, bucket, secret="wrong"))
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.results.backup_storage_used
        assert done.results.files[0].location == f"{s3.endpoint}/{spare}/calls/my-live-room.mp4"
        assert read(s3, spare)["calls/my-live-room.mp4"] == b"media"

        nowhere = f"http://127.0.0.1:{free_port()}"
        stage.recorders.started.clear()
        egress = await captured(stage, choice(s3, bucket, endpoint=nowhere), "second")
        for _ in range(3):
            await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        assert read(s3, spare)["calls/my-live-room.mp4"] == b"second"
    finally:
        await stage.close()


async def test_the_backup_takes_segments_that_were_in_place_already(
    database: SqlDatabase, tmp_path: Path, eventually: Eventually, s3: S3Server, proxy: FaultProxy
) -> None:
    """Issue section 5: a playlist in the backup storage plays although the first storage is gone with what it had."""
    bucket, spare = s3.new_bucket(), s3.new_bucket()
    backup = s3.config(bucket=spare, region=s3.region)
    stage = await EgressStage(
        database, tmp_path / "data", eventually, s3_options=OPTIONS, backup=backup
    ).open()
    try:
        hls = Outputs(segments=(SegmentsOutput("live/seg", "index.m3u8"),))
        own = choice(s3, bucket, endpoint=proxy.endpoint)
        egress = await stage.start(hls, surface=Surface.LIVEKIT, storage=own)
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.says(Joined("RM_first"), Active(at(0)), segment_written(recorder, 0, 0))

        async def first_is_up() -> bool:
            return "live/seg_00000.ts" in read(s3, bucket)

        await stage.eventually(first_is_up)
        proxy.faults.append(Fault("", times=1000, reply=error(403, "AccessDenied")))
        recorder.says(segment_written(recorder, 1, 4))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.results.backup_storage_used
        assert done.results.segments[0].segment_count == 2
        objects = read(s3, spare)
        assert objects["live/seg_00000.ts"] == b"segment 0.0"
        assert objects["live/seg_00001.ts"] == b"segment 0.1"
        assert b"seg_00000.ts" in objects["live/index.m3u8"]
    finally:
        await stage.close()


async def test_refused_everywhere_it_says_so_and_keeps_the_file(
    database: SqlDatabase, tmp_path: Path, eventually: Eventually, s3: S3Server
) -> None:
    """Section 2.6: both causes, no secret, and where the file is."""
    backup = s3.config(bucket="no-such-bucket", region=s3.region)
    stage = await EgressStage(
        database, tmp_path / "data", eventually, s3_options=OPTIONS, backup=backup
    ).open()
    try:
        egress = await captured(stage, choice(s3, s3.new_bucket(), secret="a-wrong-secret"))
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert (done.failing.code, done.failing.http_code) == ("STORAGE_UPLOAD_FAILED", 400)
        message = done.failing.message
        assert message.startswith("primary: S3 bucket ")
        assert "\nbackup: S3 bucket no-such-bucket" in message
        assert "a-wrong-secret" not in message
        assert (stage.files / "egress" / egress.id / "final.mp4").read_text() == "media"
    finally:
        await stage.close()


@pytest.mark.parametrize("start", [azurite_server, gcs_server])
async def test_a_requests_own_cloud(
    database: SqlDatabase,
    tmp_path: Path,
    eventually: Eventually,
    start: Callable[[Path], AbstractContextManager[Azurite | GcsLike]],
) -> None:
    """B-92, LK-104, LK-105, LK-107, LK-108, LK-109: whole at its place, then gone from the disk; LiveKit's manifest lies beside it."""
    (tmp_path / "server").mkdir()
    with start(tmp_path / "server") as server:
        bucket = server.new_bucket()
        stage = EgressStage(database, tmp_path / "data", eventually, cloud_options=server.options)
        await stage.open()
        egress = await captured(stage, cloud_choice(server, bucket), "x" * 11_000_000)
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        (file,) = done.results.files
        assert (file.filename, file.size) == ("calls/my-live-room.mp4", 11_000_000)
        place = f"/{bucket}" if isinstance(server, Azurite) else f"{bucket}.storage.googleapis.com"
        assert file.location.endswith(f"{place}/calls/my-live-room.mp4")
        target = StorageTarget(PROJECT, "look", cloud=server.place(bucket))
        store = await stage.storage.open(target)
        assert [one.key for one in await store.list()] == [
            f"calls/{egress.id}.json",
            "calls/my-live-room.mp4",
        ]
        assert await store.get_bytes("calls/my-live-room.mp4") == b"x" * 11_000_000
        assert not (stage.files / "egress" / egress.id).exists()
        await stage.close()


def cloud_choice(server: Azurite | GcsLike, bucket: str) -> StorageChoice:
    """A request's storage as LiveKit's clients send it."""
    if isinstance(server, GcsLike):
        return StorageChoice("gcp", {"credentials": service_account(), "bucket": bucket})
    keys = {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY}
    return StorageChoice("azure", {**keys, "container_name": bucket})


async def test_a_cloud_without_keys_says_so(stage: EgressStage) -> None:
    """LK-108: the server's own keys are not for whoever may send a request."""
    egress = await captured(stage, StorageChoice("azure", {"account_name": "acc", "container_name": "calls"}))
    await stage.deliver()
    done = await stage.becomes(egress, EgressStatus.FAILED)
    assert done.failing is not None
    assert "Azure container calls: account_name and account_key are required" in done.failing.message


async def test_segments_wait_for_a_storage_that_is_away(
    stage: EgressStage, s3: S3Server, proxy: FaultProxy, eventually: Eventually
) -> None:
    """Design section 7: in order, no playlist names what is not there, and nothing is lost."""
    bucket = s3.new_bucket()
    hls = Outputs(segments=(SegmentsOutput("live/seg", "index"),))
    proxy.faults.append(Fault("seg_00001", times=2, reply=error(500, "InternalError")))
    egress = await stage.start(
        hls, surface=Surface.LIVEKIT, storage=choice(s3, bucket, endpoint=proxy.endpoint)
    )
    claim = await stage.claim(egress)
    recorder = await stage.recorders.number(0)
    recorder.says(Joined("RM_first"), Active(at(0)))
    for number in range(4):
        name = f"seg-000-{number:05d}.ts"
        (recorder.folder / name).write_text(f"segment {number}")
        recorder.says(SegmentWritten(name, number, 4.0, at(4 * number)))

    def listed() -> list[str]:
        objects = read(s3, bucket)
        text = objects.get("live/index.m3u8", b"").decode()
        names = [f"live/{line}" for line in text.splitlines() if line.endswith(".ts")]
        assert set(names) <= set(objects)
        return names

    await eventually(lambda: len(listed()) == 4)
    puts = [line for line in proxy.requests if line.startswith("PUT") and ".ts" in line]
    assert [line.rpartition("/")[2] for line in puts] == [
        "seg_00000.ts",
        "seg_00001.ts",
        "seg_00001.ts",
        "seg_00001.ts",
        "seg_00002.ts",
        "seg_00003.ts",
    ]
    await stage.stop(egress)
    await claim.ends()
    await stage.deliver()
    done = await stage.becomes(egress, EgressStatus.COMPLETE)
    assert done.results.segments[0].segment_count == 4
    assert read(s3, bucket)["live/index.m3u8"].endswith(b"#EXT-X-ENDLIST\n")
