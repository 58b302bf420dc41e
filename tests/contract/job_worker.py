"""A worker process for the job engine's contract suite: it tells the test where it is and does what the test says.

Run as `python -m tests.contract.job_worker '{"port": …, "database_url": …, …}'`. Both sides speak JSON lines. The
worker says `{"at": …, "job": …, "epoch": …}`; wherever it waits, the test answers `{"job": …, "epoch": …, "do": …}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from adapters.crypto import AesGcmSecretBox
from adapters.db import job_queue
from adapters.db.changes import change_feed
from adapters.db.unit_of_work import open_database
from server.clock import SystemClock
from server.domain.job import Job, Progress
from server.domain.project import Usage
from server.domain.webhook import NewEvent
from server.ids import new_event_id
from server.jobs.engine import EngineOptions, LeaseJobEngine
from server.jobs.policy import AttemptPolicy
from server.ports.jobs import JobFailed, JobRun, JobStopped, OwnershipLost, RetryLater
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.recorder import OutboxRecorder

KIND = "conversion"
INNER_DETAIL = "the inner detail that nobody outside may see"


class Line:
    """The connection to the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._orders: dict[tuple[str, int], asyncio.Queue[Mapping[str, Any]]] = defaultdict(asyncio.Queue)

    def say(self, at: str, job: Job | None = None, **more: Any) -> None:
        said = {"at": at, "pid": os.getpid(), **more}
        if job is not None:
            said |= {"job": job.id, "epoch": job.epoch, "attempt": job.attempt, "project": job.project_id}
        self._writer.write(json.dumps(said).encode() + b"\n")

    async def order(self, job: Job) -> Mapping[str, Any]:
        return await self._orders[job.id, job.epoch].get()

    async def listen(self) -> None:
        """Ends this process with the test."""
        while line := await self._reader.readline():
            order = json.loads(line)
            self._orders[order["job"], order["epoch"]].put_nowait(order)
        os._exit(3)


class SteeredHandler:
    """`spec.pause` names the events inside whose transaction it waits; `spec.auto` makes it work by itself."""

    kind = KIND

    def __init__(self, line: Line) -> None:
        self._line = line

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        if run.job.spec.get("auto"):
            return await self._work_alone(run)
        self._line.say("started", run.job, secrets=dict(await run.secrets()))
        while True:
            order = await self._order_or_stop(run)
            if order is None:
                self._line.say("stopped", run.job)
                raise JobStopped
            result = await self._obey(run, order)
            if result is not None:
                return result

    async def _order_or_stop(self, run: JobRun) -> Mapping[str, Any] | None:
        order = asyncio.create_task(self._line.order(run.job))
        stop = asyncio.create_task(run.stop.wait())
        await asyncio.wait({order, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if order.done():
            return order.result()
        order.cancel()
        return None

    async def _obey(self, run: JobRun, order: Mapping[str, Any]) -> Mapping[str, Any] | None:
        match order["do"]:
            case "finish":
                return {"by": os.getpid(), "epoch": run.job.epoch}
            case "finish wrongly":
                return {"unserialisable": object()}
            case "save":
                await self._save(run)
            case "fail":
                raise JobFailed("TRANSCODE_FAILED", "The source ended after 3.2 s of 10.0 s.")
            case "retry":
                raise RetryLater("STORAGE_UNAVAILABLE", "The storage is down.", delay_sec=order["delay"])
            case "break":
                raise RuntimeError(INNER_DETAIL)
            case "stay":
                self._line.say("staying", run.job)
                await asyncio.Event().wait()
        return None

    async def _save(self, run: JobRun) -> None:
        try:
            await run.save(progress=Progress(50.0, "transcoding"), result={"saved": os.getpid()})
        except OwnershipLost:
            self._line.say("lost", run.job)
            raise
        self._line.say("saved", run.job)

    async def _work_alone(self, run: JobRun) -> Mapping[str, Any]:
        self._line.say("started", run.job)
        for percent in range(0, 100, 10):
            if run.stop.is_set():
                raise JobStopped
            await run.save(progress=Progress(float(percent), "transcoding"))
        return {"by": os.getpid()}

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        await tx.projects.add_usage(job.project_id, Usage(conversion_jobs=1))

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        return [_event("video.conversion.started", job)]

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        return [_event("video.conversion.completed", job)]

    async def on_settled(self, job: Job) -> None:
        self._line.say("settled", job, status=job.status.value)

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        return [_event("video.conversion.failed", job)]


def _event(name: str, job: Job) -> NewEvent:
    body = json.dumps({"status": job.status.value}).encode()
    return NewEvent(new_event_id(), job.project_id, name, job.id, "baxstream", body, SystemClock().now())


class PausingRecorder(OutboxRecorder):
    """Waits inside the transaction, after the event is written, where the job's spec asks for it."""

    def __init__(self, line: Line) -> None:
        super().__init__(lambda: None)
        self._line = line

    async def record(self, tx: UnitOfWork, event: NewEvent) -> None:
        await super().record(tx, event)
        job = await tx.jobs.get(None, event.subject)  # type: ignore[arg-type]
        assert job is not None
        if event.name in job.spec.get("pause", ()):
            self._line.say(event.name, job)
            await self._line.order(job)


class OffsetClock:
    """The wall clock of a host that is set wrong."""

    def __init__(self, offset_sec: float) -> None:
        self._offset = timedelta(seconds=offset_sec)

    def now(self) -> datetime:
        return SystemClock().now() + self._offset


async def main(given: Mapping[str, Any]) -> None:
    clock = OffsetClock(given["clock_offset_sec"])
    # What SQLite's statements read is the machine's clock as it stood when the process began.
    job_queue._OFFSET_NS += round(given["clock_offset_sec"] * 1e9)
    reader, writer = await asyncio.open_connection("127.0.0.1", given["port"])
    line = Line(reader, writer)
    listening = asyncio.create_task(line.listen())
    box = AesGcmSecretBox.parse(given["secret_keys"])
    database = await open_database(given["database_url"], box, clock=clock, migrated=True)
    engine = LeaseJobEngine(
        database,
        PausingRecorder(line),
        clock,
        change_feed(given["database_url"]),
        EngineOptions(
            concurrency={KIND: given["concurrency"]},
            lease_sec=given["lease_sec"],
            look_sec=given["lease_sec"] / 5,
            stop_grace_sec=given["stop_grace_sec"],
            rescue_local=given["rescue_local"],
            attempts=AttemptPolicy(first_pause_sec=0.05),
        ),
    )
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    await engine.start_worker([SteeredHandler(line)])
    line.say("ready")
    await terminated.wait()
    line.say("draining")
    await engine.drain(given["grace_sec"])
    await database.close()
    line.say("drained")
    await writer.drain()
    listening.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(main(json.loads(sys.argv[1])))
    sys.exit(0 if threading.enumerate() == [threading.main_thread()] else 4)
