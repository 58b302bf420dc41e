"""A unary call with key check and one database read, on one core: ours on each transport against a plain endpoint."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.dispatch import dispatch_micros
from benchmarks.load import first_answer, put_load_on, request_bytes
from benchmarks.results import Row, Section, ratio_of, spread
from benchmarks.servers import HEADERS, Server, bax, floor, on_processor

CONNECTIONS = 16
ROUNDS = 5
SECONDS = 4.0
TARGET_RATIO = 1.5
TARGET_DISPATCH_MICROS = 100.0
_SERVER_CPU, _CLIENT_CPU = 0, 1
_METHOD = "/baxcloud.v1.VideoConversionService/GetConversionJob"
_PLAIN, _BARE = "FastAPI + SQLAlchemy async", "bare ASGI application"

Measure = Callable[[float], Awaitable[float]]


def run(*, quick: bool) -> Section:
    rounds, seconds = (3, 1.0) if quick else (ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(bax(folder / "data", "api", cpu=_SERVER_CPU))
        # Nobody converts it: this server has no worker.
        job = ours.call("POST", "/video/convert", {"inputUrl": "http://127.0.0.1:9/clip.mp4"})
        plain = stack.enter_context(
            floor("plain", str(folder / "data" / "baxcloud.db"), folder=folder / "plain", cpu=_SERVER_CPU)
        )
        size = len(asyncio.run(first_answer(ours.http, _rest(job["id"]))))
        bare = stack.enter_context(floor("echo", str(size), folder=folder / "echo", cpu=_SERVER_CPU))
        stack.enter_context(on_processor(_CLIENT_CPU))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rates = runner.run(_all(ours, plain, bare, job["id"], rounds, seconds))
    micros = dispatch_micros(quick=quick)
    rows = [_row(name, rate, rates[_PLAIN]) for name, rate in rates.items() if name.startswith("GetConv")]
    rows += [Row(f"floor: {name}, requests/s", spread(rates[name], digits=0)) for name in (_PLAIN, _BARE)]
    met = statistics.median(micros) <= TARGET_DISPATCH_MICROS
    rows.append(
        Row(
            "dispatch's own share of a call, CPU",
            spread(micros, "µs", 0),
            target=f"≤ {TARGET_DISPATCH_MICROS:.0f} µs",
            met=met,
        )
    )
    return Section(rows, _notes(rounds, seconds))


def _row(name: str, rate: list[float], plain: list[float]) -> Row:
    ratio = ratio_of(rate, plain)
    # gRPC is shown, not held to the target: its clients and the plain endpoint's do not do the same work.
    target = "" if "gRPC" in name else f"≥ {TARGET_RATIO:.1f}×"
    met = ratio >= TARGET_RATIO if target else None
    return Row(
        f"{name}, requests/s", spread(rate, digits=0), spread(plain, digits=0), f"{ratio:.2f}×", target, met
    )


def _notes(rounds: int, seconds: float) -> list[str]:
    return [
        (
            f"`bax serve --role api` on SQLite with its default log, pinned to one core, the clients to "
            f"{'the other' if (os.cpu_count() or 1) == 2 else 'another'}: {CONNECTIONS} keep-alive connections of "
            f"`benchmarks/load.py`, {rounds} turns of {seconds:.0f} s for each side. gRPC: the same number of calls at a "
            "time on one grpc.aio channel, whose client may be the limit."
        ),
        (
            "Plain: `benchmarks/plain_endpoint.py`, the same key and job rows of the same database file read by SQLAlchemy's "
            "async ORM with aiosqlite, answered through a pydantic model, same uvicorn, uvloop and httptools, no log."
        ),
        (
            "Dispatch: authenticate (cached key) → authorise → validate → deadline → a handler that returns a ready message → "
            "log line and metrics; no transport, no I/O but the log line to a file."
        ),
    ]


def _rest(job_id: str) -> bytes:
    return request_bytes("GET", f"/video/jobs/{job_id}", HEADERS)


async def _all(
    ours: Server, plain: Server, bare: Server, job_id: str, rounds: int, seconds: float
) -> dict[str, list[float]]:
    from generated.baxcloud.v1 import video_conversion_pb2 as pb

    message = pb.GetConversionJobRequest(job_id=job_id).SerializeToString()
    twirp = f"/twirp{_METHOD}"
    over_http = {
        "GetConversionJob, REST": (ours, _rest(job_id)),
        "GetConversionJob, Twirp JSON": (
            ours,
            request_bytes(
                "POST",
                twirp,
                {**HEADERS, "content-type": "application/json"},
                b'{"jobId":"%s"}' % job_id.encode(),
            ),
        ),
        "GetConversionJob, Twirp protobuf": (
            ours,
            request_bytes("POST", twirp, {**HEADERS, "content-type": "application/protobuf"}, message),
        ),
        _PLAIN: (plain, _rest(job_id)),
        _BARE: (bare, _rest(job_id)),
    }

    def http(server: Server, request: bytes) -> Measure:
        async def measure(length: float) -> float:
            load = await put_load_on(server.http, request, connections=CONNECTIONS, seconds=length)
            return load.per_sec

        return measure

    sides: dict[str, Measure] = {name: http(*one) for name, one in over_http.items()}
    sides["GetConversionJob, gRPC"] = lambda length: _grpc_load(ours.grpc, message, length)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for name, measure in sides.items():
        if name in over_http:
            await first_answer(over_http[name][0].http, over_http[name][1])
        await measure(0.5)
    for _ in range(rounds):
        for name, measure in sides.items():
            rates[name].append(await measure(seconds))
    return rates


async def _grpc_load(address: str, message: bytes, seconds: float) -> float:
    import grpc

    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(_METHOD)
        metadata = tuple(HEADERS.items())
        until = time.perf_counter() + seconds
        counts = [0] * CONNECTIONS

        async def caller(index: int) -> None:
            while time.perf_counter() < until:
                await call(message, metadata=metadata)
                counts[index] += 1

        began = time.perf_counter()
        await asyncio.gather(*map(caller, range(CONNECTIONS)))
        return sum(counts) / (time.perf_counter() - began)
