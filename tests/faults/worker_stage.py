"""An API in this process and workers in processes of their own, on one database and data directory."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from adapters.db.tables import events, jobs
from adapters.ffmpeg.audit import audit, directory_reader
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from tests.conftest import Eventually
from tests.faults.processes import below, media_of
from tests.integration.conversion_stage import Stage, backend_stage, events_of
from tests.servers.s3 import S3Server
from tests.sinks import Sink

ROOT = Path(__file__).parents[2]
# Generous: these waits end with what they wait for; what they bound is a hang.
DEADLINE_SEC = 60.0
LEASE_SEC = 2.0
STARTED, COMPLETED, FAILED = (f"video.conversion.{what}" for what in ("started", "completed", "failed"))


@dataclass(frozen=True, slots=True)
class Worker:
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def encodes(self) -> bool:
        return any(child.is_media for child in below(self.pid))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE_SEC):
            return await self.process.wait()


@dataclass
class WorkerStage:
    """Leaving the block kills every worker. `log` is what all of them wrote, `sink` what came by webhook."""

    api: Stage
    sink: Sink
    log: Path
    settings: dict[str, Any]
    workers: list[Worker] = field(default_factory=list)

    async def worker(self, **settings: Any) -> Worker:
        """A new process; returns once it takes jobs."""
        given = json.dumps(self.settings | settings)
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.worker_process",
                given,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.workers.append(Worker(process))
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_SEC):
            said = await process.stdout.readline()
        assert said == b"ready\n", self.log.read_text()[-3000:]
        return self.workers[-1]

    async def becomes(
        self, job: pb.ConversionJob, fits: Callable[[pb.ConversionJob], bool]
    ) -> pb.ConversionJob:
        """Waits for a state of the job; fails at once if it ends in another."""

        async def look() -> pb.ConversionJob | None:
            seen = await self.api.get(job.id)
            if fits(seen):
                return seen
            if seen.status in (pb.ConversionJob.COMPLETED, pb.ConversionJob.FAILED):
                raise RuntimeError(f"{seen}\n{self.log.read_text()[-3000:]}")
            return None

        found: pb.ConversionJob = await self.api.eventually(look, within=DEADLINE_SEC)
        return found

    async def completes(self, job: pb.ConversionJob) -> pb.ConversionJob:
        return await self.becomes(job, lambda seen: seen.status == pb.ConversionJob.COMPLETED)

    async def events(self, job: pb.ConversionJob) -> list[str]:
        return await events_about(self.api, job)

    def told(self, job: pb.ConversionJob) -> list[str]:
        """Names of its events that have come by webhook, in order; one that came twice is shown once."""
        bodies = {body["eventId"]: body for body in events_of(self.sink) if body["data"]["jobId"] == job.id}
        return [body["event"] for body in bodies.values()]

    async def row(self, job: pb.ConversionJob) -> dict[str, Any]:
        """The job's row as it is stored."""
        wanted = select(jobs).where(jobs.c.id == job.id)
        async with self.api.backend.database.read() as tx:
            found = await tx.run_sync(lambda connection: connection.execute(wanted).mappings().one())
        return dict(found)

    async def is_tidy(self) -> None:
        """Nothing of any job is left on this machine: no media process, no source, no segment."""

        def tidy() -> bool:
            assert media_of(self.api.data_dir) == []
            assert self.api.local_files() == []
            assert list((self.api.data_dir / "work").glob("*")) == []
            return True

        await self.api.eventually(tidy, within=DEADLINE_SEC)


async def events_about(stage: Stage, job: pb.ConversionJob) -> list[str]:
    """Names of the job's recorded events, sorted."""
    wanted = select(events.c.name).where(events.c.subject == job.id).order_by(events.c.name)
    async with stage.backend.database.read() as tx:
        return list(await tx.run_sync(lambda connection: connection.execute(wanted).scalars().all()))


@asynccontextmanager
async def worker_stage(
    data_dir: Path, database_url: str, eventually: Eventually, **settings: Any
) -> AsyncIterator[WorkerStage]:
    own: dict[str, Any] = {"database_url": database_url, "lease_sec": LEASE_SEC, "conversion_concurrency": 1}
    own |= settings
    async with backend_stage(data_dir, eventually, work=False, **own) as api:
        given = own | {"data_dir": str(data_dir), "allow_private_urls": True}
        stage = WorkerStage(api, await api.listen(), data_dir.parent / "workers.log", given)
        try:
            yield stage
        finally:
            for worker in stage.workers:
                with suppress(ProcessLookupError):
                    worker.process.kill()
                await worker.process.wait()
            # Shown by pytest when the test has failed.
            sys.stdout.write(stage.log.read_text() if stage.log.exists() else "")


def check_local(stage: WorkerStage, job: pb.ConversionJob, segments: int) -> None:
    """Exactly the ladder is there, and it is whole."""
    objects = stage.api.objects(job)
    assert set(objects) == expected_keys(segments)
    found = audit(directory_reader(objects["master.m3u8"].parent), renditions=["360p"])
    assert found == [], found


def check_bucket(s3: S3Server, bucket: str, segments: int) -> None:
    """The same of a bucket, and no part of an unfinished upload."""
    client = s3.client()
    keys = {entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])}
    assert keys == expected_keys(segments)
    assert (
        audit(
            lambda key: bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read()), renditions=["360p"]
        )
        == []
    )
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    client.close()


def expected_keys(segments: int) -> set[str]:
    return {"master.m3u8", "thumbnail.jpg", "360p/playlist.m3u8"} | {
        f"360p/segment_{number:03}.ts" for number in range(segments)
    }


def bucket_behind(proxy_endpoint: str, s3: S3Server, bucket: str) -> dict[str, str]:
    """A request's `s3Config` that goes through the proxy."""
    return {
        "bucket": bucket,
        "endpoint": proxy_endpoint,
        "access_key": s3.access_key,
        "secret_key": s3.secret_key,
    }
