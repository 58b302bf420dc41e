"""Databases that restart or are locked while conversions run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.domain.project import Usage
from tests.conftest import Eventually
from tests.faults.databases import check_sqlite, locked_sqlite
from tests.faults.sources import SteadySource
from tests.faults.worker_stage import expected_keys
from tests.integration.conversion_stage import backend_stage, events_of
from tests.media import Clip, ClipFactory
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(120)

LOCKED_SEC = 4.0


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_postgres_restarts_while_a_conversion_runs(
    data_dir: Path,
    database_url: str,
    postgres: PostgresServer,
    eventually: Eventually,
    clips: ClipFactory,
    how: signal.Signals,
) -> None:
    """Issue section 8, case 37: in order or by a crash; the same attempt completes and tells it once."""
    async with (
        backend_stage(data_dir, eventually, database_url=database_url) as stage,
        SteadySource(clips.clip(Clip(seconds=5)), hold_at=0.5) as source,
    ):
        sink = await stage.listen()
        job = await stage.convert(source.url)
        await source.holding.wait()
        await asyncio.to_thread(postgres.stop, how)
        try:
            source.release()
            # It goes on without the database: the whole source arrives.
            await eventually(lambda: list((data_dir / "work").glob("*/source")))
        finally:
            await asyncio.to_thread(postgres.start)
        done = await stage.finish(job)
        assert done.status == pb.ConversionJob.COMPLETED, done.error_message
        assert set(stage.objects(done)) == expected_keys(3)
        await eventually(lambda: len(sink.received) == 2)
        assert [event["event"] for event in events_of(sink)] == [
            "video.conversion.started",
            "video.conversion.completed",
        ]
        assert await stage.usage() == Usage(conversion_jobs=1, conversion_seconds=5, conversion_cents=1)


async def test_a_lock_of_another_process_is_waited_for(
    data_dir: Path, eventually: Eventually, clips: ClipFactory
) -> None:
    """Case 36: four seconds of a foreign write lock are an error to nobody, neither to callers nor to the job."""
    path = data_dir / "baxcloud.db"
    async with backend_stage(data_dir, eventually) as stage:
        running = await stage.upload(clips.clip(Clip(seconds=5)))
        async with locked_sqlite(path):
            created = asyncio.create_task(stage.upload(clips.clip()))
            # The lock's length is what is tested here.
            await asyncio.sleep(LOCKED_SEC)
            # Readers are not held up at all.
            assert (await stage.get(running.id)).id == running.id
            assert not created.done()
        for job in (running, await created):
            done = await stage.finish(job)
            assert done.status == pb.ConversionJob.COMPLETED, done.error_message
    check_sqlite(path)
