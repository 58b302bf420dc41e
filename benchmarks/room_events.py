"""LiveKit's webhooks taken in per second: each checked, and answered once its event is stored, on SQLite."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import jwt
import uvloop
from starlette.applications import Starlette

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.unit_of_work import SqlDatabase, open_database
from adapters.livekit.configured import ConfiguredLiveKit
from benchmarks.results import Row, Section, spread
from server.clock import SystemClock
from server.domain.project import Project
from server.domain.room_names import RoomNames
from server.domain.webhook import SigningSecret, WebhookEndpoint
from server.http_server import HttpServer, bind_http
from server.ids import new_id
from server.rooms.intake import LiveKitWebhooks
from server.rooms.journal import RoomJournal
from server.transports.livekit_webhook import PATH, livekit_webhook_routes
from server.webhooks.recorder import OutboxRecorder
from tests.unit.rooms.scenes import PROJECT, body

ROUNDS = 3
TARGET_PER_SEC = 500
_SHAPES = ((40, 60), (1, 500))
_KEY, _SECRET = "APIbench", "a-secret-of-the-benchmark-0123456789"
_TIMEOUT_SEC = 300.0


def run(*, quick: bool) -> Section:
    rows = []
    for rooms, people in _SHAPES:
        rates = [_once(rooms, people // 10 if quick else people) for _ in range(1 if quick else ROUNDS)]
        # One room's events come one after the other, each after the answer to the last: LiveKit's own limit.
        target = rooms > 1
        rows.append(
            Row(
                f"webhooks taken in per second, {rooms} {'rooms' if rooms > 1 else 'room'}",
                spread(rates, digits=0),
                target=f"≥ {TARGET_PER_SEC}" if target else "",
                met=min(rates) >= TARGET_PER_SEC if target else None,
            )
        )
    note = (
        "Each participant joins, publishes, unpublishes and leaves: four signed webhooks, every room's one after the other "
        "as LiveKit sends them, all rooms at the same time, from a process of its own. One endpoint subscribes to "
        "everything, so that each is stored with its delivery (SQLite with synchronous=FULL). A run fails if an event is "
        f"missing. {ROUNDS} runs, the slowest counts."
    )
    return Section(rows, [note])


def _once(rooms: int, people: int) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="bax-bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(Path(folder), rooms, people))


async def _measure(folder: Path, rooms: int, people: int) -> float:
    database = await open_database(f"sqlite:///{folder / 'b.db'}", AesGcmSecretBox.parse(new_key_text()))
    await _subscribe(database)
    clock = SystemClock()
    journal = RoomJournal(database, OutboxRecorder(lambda: None), RoomNames(PROJECT), clock)
    livekit = ConfiguredLiveKit("http://127.0.0.1:1", _KEY, _SECRET)
    intake = LiveKitWebhooks(livekit, journal, clock)
    listener = bind_http("127.0.0.1", 0)
    server = HttpServer(Starlette(routes=livekit_webhook_routes(intake)), listener)
    serving = server.start()
    here, there = multiprocessing.get_context("spawn").Pipe()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
    sender = multiprocessing.get_context("spawn").Process(
        target=_send, args=(there, url, rooms, people), daemon=True
    )
    sender.start()
    took = await asyncio.to_thread(_answer, here)
    sender.join()
    await server.stop(1)
    await serving
    expected = rooms * (1 + 4 * people)
    async with database.read() as tx:
        stored = await tx.run_sync(
            lambda connection: connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one()
        )
    await database.close()
    if stored != expected:
        raise RuntimeError(f"{expected - stored} of {expected} events were lost")
    return expected / took


async def _subscribe(database: SqlDatabase) -> None:
    now = datetime.now(UTC)
    secrets = (SigningSecret("whsec_benchmark"),)
    endpoint = WebhookEndpoint(new_id("wh"), PROJECT, "https://hooks.test", ("*",), secrets, True, now, now)  # noqa: FBT003
    async with database.begin() as tx:
        await tx.projects.add(Project(PROJECT, "benchmark", now))
        await tx.webhooks.add(endpoint)
        await tx.commit()


def _answer(line: Connection) -> float:
    if not line.poll(_TIMEOUT_SEC):
        raise RuntimeError("the webhooks were not taken in time")
    took, fault = line.recv()
    if fault:
        raise RuntimeError(fault)
    return float(took)


def _send(line: Connection, url: str, rooms: int, people: int) -> None:
    """Runs in a process of its own; sends the seconds that it took, or what went wrong."""
    calls = [[(one, _token(one)) for one in _call(f"RM_{number}", people)] for number in range(rooms)]
    try:
        line.send((uvloop.run(_post_all(url, calls)), None))
    except Exception as fault:  # noqa: BLE001 - told to the process that waits
        line.send((None, repr(fault)))


def _call(sid: str, people: int) -> list[bytes]:
    found = [body("room_started", sid=sid, room=sid)]
    for number in range(people):
        who = f"{sid}-{number}"
        found += [
            body("participant_joined", sid=sid, room=sid, who=who),
            body("track_published", sid=sid, room=sid, who=who, track=who),
            body("track_unpublished", sid=sid, room=sid, who=who, track=who),
            body("participant_left", sid=sid, room=sid, who=who),
        ]
    return found


def _token(content: bytes) -> str:
    now = int(time.time())
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    claims = {"iss": _KEY, "iat": now, "nbf": now, "exp": now + 300, "sha256": digest}
    return jwt.encode(claims, _SECRET, algorithm="HS256")


async def _post_all(url: str, calls: Sequence[Sequence[tuple[bytes, str]]]) -> float:
    async with aiohttp.ClientSession() as session:

        async def post(call: Sequence[tuple[bytes, str]]) -> None:
            for content, token in call:
                async with session.post(url, data=content, headers={"authorization": token}) as answer:
                    if answer.status != 200:
                        raise RuntimeError(f"answered {answer.status}")

        began = time.perf_counter()
        await asyncio.gather(*map(post, calls))
        return time.perf_counter() - began
