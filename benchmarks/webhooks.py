"""Events recorded and delivered per second: one transaction each, to one endpoint, on SQLite, none lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from benchmarks.results import Row, Section, spread
from benchmarks.servers import KEY, PROJECT
from server.app import Backend, open_backend
from server.domain.webhook import NewEvent, SigningSecret, WebhookEndpoint
from server.ids import ProjectId, new_event_id, new_id, new_job_id
from server.settings import load_settings
from server.webhooks.recorder import OutboxRecorder

EVENTS = 10_000
ROUNDS = 3
TARGET_PER_SEC = 500
_PER_SUBJECT = 3
_BODY = b'{"event":"video.conversion.completed","data":{"padding":"' + b"x" * 600 + b'"}}'
_TIMEOUT_SEC = 300.0


def run(*, quick: bool) -> Section:
    events, rounds = (1000, 1) if quick else (EVENTS, ROUNDS)
    rates = []
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="bax-bench-") as name,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            rates.append(runner.run(_measure(Path(name), events)))
    typical = statistics.median(rates)
    row = Row(
        "events recorded and delivered per second",
        spread(rates, digits=0),
        target=f"≥ {TARGET_PER_SEC}",
        met=typical >= TARGET_PER_SEC,
    )
    note = (
        f"{events} events of {len(_BODY)} bytes, {_PER_SUBJECT} of each job, every one recorded in a transaction of its own "
        "(durable: SQLite with synchronous=FULL), signed and posted to one endpoint in another process while the next are "
        f"recorded; from the first record to the last arrival, {rounds} runs. A run fails if an event "
        "is missing, or out of order within its job."
    )
    return Section([row], [note])


async def _measure(folder: Path, events: int) -> float:
    here, there = multiprocessing.get_context("spawn").Pipe()
    sink = multiprocessing.get_context("spawn").Process(target=_sink, args=(there, events), daemon=True)
    sink.start()
    port = await asyncio.to_thread(here.recv)
    settings = load_settings(
        data_dir=folder / "data",
        bootstrap_api_key=KEY,
        bootstrap_project_id=PROJECT,
        allow_private_urls=True,
    )
    async with open_backend(settings, public_url="http://127.0.0.1", with_worker=True) as backend:
        assert backend.worker is not None
        await _subscribe(backend, f"http://127.0.0.1:{port}/hook")
        backend.worker.relay.start()
        recorder = OutboxRecorder(backend.worker.relay.wake)
        made = [_event(index) for index in _interleaved(events)]
        began = time.perf_counter()
        for event in made:
            async with backend.database.begin() as tx:
                await recorder.record(tx, event)
                await tx.commit()
        arrived = await asyncio.to_thread(_received, here)
        took = time.perf_counter() - began
        await backend.worker.relay.stop()
    sink.join()
    _check(made, arrived)
    return events / took


def _interleaved(events: int) -> list[str]:
    """Subjects of the events: each job's follow each other at a distance, as those of jobs that run side by side."""
    jobs = [new_job_id() for _ in range(-(-events // _PER_SUBJECT))]
    return [jobs[index % len(jobs)] for index in range(events)]


def _event(subject: str) -> NewEvent:
    name, family = "video.conversion.completed", "baxstream"
    return NewEvent(new_event_id(), ProjectId(PROJECT), name, subject, family, _BODY, datetime.now(UTC))


async def _subscribe(backend: Backend, url: str) -> None:
    now = datetime.now(UTC)
    secrets = (SigningSecret("whsec_benchmark"),)
    endpoint = WebhookEndpoint(new_id("wh"), ProjectId(PROJECT), url, ("*",), secrets, True, now, now)  # noqa: FBT003
    async with backend.database.begin() as tx:
        await tx.webhooks.add(endpoint)
        await tx.commit()


def _received(line: Connection) -> list[str]:
    if not line.poll(_TIMEOUT_SEC):
        raise RuntimeError("not all events arrived")
    ids: list[str] = line.recv()
    return ids


def _check(made: list[NewEvent], arrived: list[str]) -> None:
    first = {event_id: number for number, event_id in reversed(list(enumerate(arrived)))}
    if missing := {event.id for event in made} - first.keys():
        raise RuntimeError(f"{len(missing)} events were lost")
    latest: dict[str, int] = {}
    for event in made:
        if first[event.id] < latest.get(event.subject, -1):
            raise RuntimeError(f"{event.id} overtook an earlier event of its job")
        latest[event.subject] = first[event.id]


def _sink(line: Connection, events: int) -> None:
    """Answers every request with 204 and sends the ids, in order of arrival, once there are `events` different ones."""
    asyncio.run(_serve(line, events))


async def _serve(line: Connection, events: int) -> None:
    arrived: list[str] = []
    complete = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            await reader.readexactly(int(head["content-length"]))
            arrived.append(head["webhook-id"])
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            if len(arrived) >= events and len(set(arrived)) >= events:
                complete.set()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        line.send(server.sockets[0].getsockname()[1])
        await complete.wait()
        line.send(arrived)
        await asyncio.to_thread(line.poll, 1.0)


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return {}
    pairs = (line.partition(":") for line in raw.decode("latin-1").split("\r\n")[1:] if line)
    return {name.lower(): value.strip() for name, _, value in pairs}
