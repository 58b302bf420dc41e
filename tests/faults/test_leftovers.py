"""What dead workers leave in a bucket is found and removed, and nothing else is (2.8 case 35, invariant I5)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.conversion.fenced_store import PUBLISHING
from server.conversion.leftovers import LeftoverSweep
from server.domain.conversion import ConversionSpec
from server.domain.job import Job, JobStatus, NewJob
from server.domain.project import S3Config
from server.ids import new_job_id
from server.ports.storage import ObjectStorage, StorageTarget
from tests.conftest import Eventually
from tests.faults.worker_stage import ROOT
from tests.integration.conversion_stage import Stage, backend_stage
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, FaultProxy, error

pytestmark = pytest.mark.timeout(300)

WORKERS = 20
# Two parts: the second is held, so the upload stays open.
FILE_BYTES = 6 << 20


@dataclass
class Fixed:
    moment: datetime

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    settings: dict[str, Any] = {"conversion_concurrency": WORKERS, "lease_sec": 2.0}
    async with backend_stage(data_dir, eventually, work=False, **settings) as stage:
        yield stage


def new_job(stage: Stage, config: S3Config, prefix: str) -> NewJob:
    """One that may be tried once."""
    job_id = new_job_id()
    target = StorageTarget(stage.project_id, job_id, config, prefix, trusted=True)
    spec = ConversionSpec("https://x.test/v.mp4", ("360p",), "fast", 2.0, False, False, target)
    return NewJob(
        job_id, stage.project_id, "conversion", spec.to_json(), secrets=spec.secrets(), max_attempts=1
    )


async def added(stage: Stage, job: NewJob, *, owner: str) -> Job:
    """As it is while that worker runs it, and has begun to write."""
    async with stage.backend.database.begin() as tx:
        await tx.jobs.add(job, datetime.now(UTC))
        await tx.jobs.claim(job.id, owner=owner, now=datetime.now(UTC))
        await tx.jobs.update(job.id, epoch=1, result={PUBLISHING: True})
        await tx.commit()
    return await row_of(stage, job)


async def ended(stage: Stage, job: Job, status: JobStatus, *, ago: timedelta) -> None:
    then = datetime.now(UTC) - ago
    async with stage.backend.database.begin() as tx:
        if status is JobStatus.COMPLETED:
            await tx.jobs.complete(job.id, epoch=1, result={}, now=then)
        else:
            await tx.jobs.fail(job.id, epoch=1, code="INTERNAL", message="m", now=then)
        await tx.commit()


async def row_of(stage: Stage, job: Job | NewJob) -> Job:
    async with stage.backend.database.read() as tx:
        row = await tx.jobs.get(None, job.id)
    assert row is not None
    return row


class Bucket:
    """A fresh one, looked at past the proxy."""

    def __init__(self, s3: S3Server) -> None:
        self.name = s3.new_bucket()
        self._client = s3.client()

    def put(self, *keys: str) -> None:
        for key in keys:
            self._client.put_object(Bucket=self.name, Key=key, Body=b"x")

    def begin_upload(self, key: str) -> None:
        self._client.create_multipart_upload(Bucket=self.name, Key=key)

    @property
    def keys(self) -> list[str]:
        return [one["Key"] for one in self._client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    @property
    def uploads(self) -> list[str]:
        return [
            one["Key"] for one in self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        ]

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[Bucket]:
    made = Bucket(s3)
    yield made
    made.close()


async def test_twenty_workers_die_with_open_uploads(
    stage: Stage, s3: S3Server, bucket: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Case 35: each had sent a part. Who finds their jobs dead ends the uploads and removes what was written."""
    proxy.faults.append(Fault("partNumber=2", hang=True, times=WORKERS * 10))
    file = tmp_path / "segment.ts"
    file.write_bytes(b"s" * FILE_BYTES)
    config = s3.config(bucket=bucket.name)
    jobs = [new_job(stage, config, f"job-{number}/") for number in range(WORKERS)]
    given = {"endpoint": proxy.endpoint, "bucket": bucket.name, "file": str(file)}
    given |= {"access_key": s3.access_key, "secret_key": s3.secret_key}
    workers = [await uploader(given | {"prefix": f"job-{number}/"}) for number in range(WORKERS)]
    try:
        owners = [(await one.stdout.readline()).decode().strip() for one in workers if one.stdout]
        for job, owner in zip(jobs, owners, strict=True):
            await added(stage, job, owner=owner)
            bucket.put(f"{job.spec['storage']['prefix']}360p/playlist.m3u8")
        # Twenty interpreters start at once; the bound is for a hang.
        await stage.eventually(lambda: len(bucket.uploads) == WORKERS, within=120, every=0.2)
    finally:
        for one in workers:
            one.kill()
            await one.wait()
    proxy.released.set()
    left_by_the_dead = len(bucket.uploads)

    await stage.start_worker()

    async def all_failed() -> bool:
        return all([(await row_of(stage, job)).status is JobStatus.FAILED for job in jobs])

    await stage.eventually(all_failed, within=90)
    await stage.eventually(lambda: (bucket.uploads, bucket.keys) == ([], []), within=30)
    assert left_by_the_dead == WORKERS
    assert "lost 1 time" in ((await row_of(stage, jobs[0])).error_message or "")


async def uploader(given: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.upload_process",
        json.dumps(given),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


class TestSweep:
    """For what nobody was left to remove: the worker died between FAILED and the removal, or the storage was away."""

    async def test_leftovers_are_removed_once(
        self, stage: Stage, s3: S3Server, bucket: Bucket, proxy: FaultProxy
    ) -> None:
        config = s3.config(bucket=bucket.name, endpoint=proxy.endpoint)
        job = await added(stage, new_job(stage, config, "a/"), owner="dead")
        await ended(stage, job, JobStatus.FAILED, ago=timedelta(hours=1))
        bucket.put(
            "a/360p/segment_000.ts", "a/360p/playlist.m3u8", "a/notes.txt", "other/360p/segment_000.ts"
        )
        bucket.begin_upload("a/360p/segment_001.ts")
        bucket.begin_upload("other/360p/segment_001.ts")

        swept = await sweep(stage).run()
        asked = len(proxy.requests)

        assert swept == 1
        assert bucket.keys == ["a/notes.txt", "other/360p/segment_000.ts"]
        assert bucket.uploads == ["other/360p/segment_001.ts"]
        assert await sweep(stage).run() == 1 - swept
        assert len(proxy.requests) == asked

    async def test_a_storage_that_is_away_is_asked_again_next_time(
        self, stage: Stage, s3: S3Server, bucket: Bucket, proxy: FaultProxy
    ) -> None:
        config = s3.config(bucket=bucket.name, endpoint=proxy.endpoint)
        job = await added(stage, new_job(stage, config, "a/"), owner="dead")
        await ended(stage, job, JobStatus.FAILED, ago=timedelta(hours=1))
        bucket.put("a/360p/segment_000.ts")
        proxy.faults.append(Fault("", reply=error(403, "AccessDenied"), times=100))

        first = await sweep(stage).run()
        proxy.faults.clear()

        assert first == 0
        assert await sweep(stage).run() == 1
        assert bucket.keys == []

    @pytest.mark.parametrize(
        ("status", "ago"),
        [
            (JobStatus.COMPLETED, timedelta(hours=1)),
            (JobStatus.FAILED, timedelta(minutes=1)),
        ],
        ids=["completed", "failed just now"],
    )
    async def test_others_are_left_alone(
        self, stage: Stage, s3: S3Server, bucket: Bucket, status: JobStatus, ago: timedelta
    ) -> None:
        """A result is a result, and who has just ended a job is removing its objects."""
        job = await added(stage, new_job(stage, s3.config(bucket=bucket.name), "a/"), owner="dead")
        await ended(stage, job, status, ago=ago)
        bucket.put("a/360p/segment_000.ts")

        assert await sweep(stage).run() == 0
        assert bucket.keys == ["a/360p/segment_000.ts"]

    async def test_running_jobs_are_left_alone(self, stage: Stage, s3: S3Server, bucket: Bucket) -> None:
        await added(stage, new_job(stage, s3.config(bucket=bucket.name), "a/"), owner="alive")
        bucket.begin_upload("a/360p/segment_000.ts")

        assert await sweep(stage).run() == 0
        assert bucket.uploads == ["a/360p/segment_000.ts"]

    async def test_a_later_job_that_writes_to_the_same_place_is_spared(
        self, stage: Stage, s3: S3Server, bucket: Bucket
    ) -> None:
        """Keys hold no job id: by now they are the later job's."""
        config = s3.config(bucket=bucket.name)
        job = await added(stage, new_job(stage, config, "a/"), owner="dead")
        await ended(stage, job, JobStatus.FAILED, ago=timedelta(hours=1))
        later = await added(stage, new_job(stage, config, "a/"), owner="alive")
        await ended(stage, later, JobStatus.COMPLETED, ago=timedelta())
        bucket.put("a/360p/segment_000.ts")

        assert await sweep(stage).run() == 0
        assert bucket.keys == ["a/360p/segment_000.ts"]
        assert (await row_of(stage, job)).result[PUBLISHING] is False


def sweep(stage: Stage) -> LeftoverSweep:
    return LeftoverSweep(stage.backend.database, storage_of(stage), Fixed(datetime.now(UTC)))


def storage_of(stage: Stage) -> ObjectStorage:
    return stage.conversions._storage
