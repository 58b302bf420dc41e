"""`livekit.RoomService/ListRooms` with 20 rooms through us, against the same call to LiveKit itself."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import jwt
import uvloop
from livekit.protocol import room as pb

from benchmarks.load import first_answer, put_load_on, request_bytes
from benchmarks.results import Row, Section, spread
from benchmarks.servers import Server, bax, on_processor
from server.ports.livekit import LiveKitAddress
from tests.servers.livekit import livekit_server

ROOMS = 20
ROUNDS = 5
SECONDS = 3.0
CONNECTIONS = 16
TARGET_ADDED_MS = 3.0
TARGET_PER_SEC = 1000
_SERVER_CPU, _OTHER_CPU = 0, 1
_KEY, _SECRET = "APIbenchmark", "a-secret-of-the-benchmark-0123456789"
_PATH = "/twirp/livekit.RoomService/"


def run(*, quick: bool) -> Section:
    rounds, seconds = (2, 0.5) if quick else (ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        with on_processor(_OTHER_CPU):
            behind = stack.enter_context(livekit_server(folder)).address
        ours = stack.enter_context(
            bax(
                folder / "data",
                "api",
                cpu=_SERVER_CPU,
                BAX_LIVEKIT_URL=behind.url,
                BAX_LIVEKIT_API_KEY=behind.api_key,
                BAX_LIVEKIT_API_SECRET=behind.api_secret,
                BAX_BOOTSTRAP_LIVEKIT_API_KEY=_KEY,
                BAX_BOOTSTRAP_LIVEKIT_API_SECRET=_SECRET,
            )
        )
        stack.enter_context(on_processor(_OTHER_CPU))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(_measure(ours, behind, rounds, seconds))
    note = (
        f"`bax serve --role api` on SQLite with its default log, pinned to one core; livekit-server and the clients share "
        f"another. {ROOMS} rooms, a project's own pair; latency on one connection, rates on {CONNECTIONS}, {rounds} turns of "
        f"{seconds:g} s for each side. Per processor-second: what one core of ours to itself would answer, whatever else "
        "the machine is doing."
    )
    return Section(rows, [note])


async def _measure(ours: Server, behind: LiveKitAddress, rounds: int, seconds: float) -> list[Row]:
    direct = behind.url.removeprefix("http://")
    for number in range(ROOMS):
        request = pb.CreateRoomRequest(name=f"room-{number}", empty_timeout=3600).SerializeToString()
        await first_answer(ours.http, _request("CreateRoom", request, _KEY, _SECRET))
    rows = []
    for kind, body in (("protobuf", b""), ("json", b"{}")):
        proxied = _request("ListRooms", body, _KEY, _SECRET, kind)
        plain = _request("ListRooms", body, behind.api_key, behind.api_secret, kind)
        rows += await _compare(ours, (ours.http, proxied), (direct, plain), kind, rounds, seconds)
    return rows


async def _compare(
    ours: Server, proxied: tuple[str, bytes], plain: tuple[str, bytes], kind: str, rounds: int, seconds: float
) -> list[Row]:
    added, rates, per_cpu, floors = [], [], [], []
    await first_answer(*proxied)
    await put_load_on(*proxied, connections=CONNECTIONS, seconds=1.0)
    for _ in range(rounds):
        alone = [
            (await put_load_on(*side, connections=1, seconds=seconds)).median_ms for side in (proxied, plain)
        ]
        added.append(alone[0] - alone[1])
        cpu, began = ours.cpu_sec(), time.perf_counter()
        rate = (await put_load_on(*proxied, connections=CONNECTIONS, seconds=seconds)).per_sec
        took = time.perf_counter() - began
        rates.append(rate)
        per_cpu.append(rate * took / max(ours.cpu_sec() - cpu, 0.01))
        floors.append((await put_load_on(*plain, connections=CONNECTIONS, seconds=seconds)).per_sec)
    return [
        _row(f"ListRooms, {kind}: added to LiveKit's own p50", added, "ms", f"≤ {TARGET_ADDED_MS:.0f} ms", 2),
        Row(
            f"ListRooms, {kind}, calls/s",
            spread(rates, digits=0),
            spread(floors, digits=0),
            f"{statistics.median(rates) / statistics.median(floors):.2f}×",
            f"≥ {TARGET_PER_SEC}" if kind == "protobuf" else "",
            statistics.median(rates) >= TARGET_PER_SEC if kind == "protobuf" else None,
        ),
        Row(f"ListRooms, {kind}, calls per processor-second", spread(per_cpu, digits=0)),
    ]


def _row(what: str, values: Sequence[float], unit: str, target: str, digits: int) -> Row:
    return Row(
        what, spread(values, unit, digits), target=target, met=statistics.median(values) <= TARGET_ADDED_MS
    )


def _request(method: str, body: bytes, key: str, secret: str, kind: str = "protobuf") -> bytes:
    grants = {"roomCreate": True, "roomList": True}
    token = jwt.encode({"iss": key, "exp": int(time.time()) + 3600, "video": grants}, secret)
    headers = {"authorization": f"Bearer {token}", "content-type": f"application/{kind}"}
    request = request_bytes("POST", _PATH + method, headers, body)
    return request if body else request.replace(b"\r\n\r\n", b"\r\ncontent-length: 0\r\n\r\n", 1)
