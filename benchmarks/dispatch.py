"""What dispatch itself adds to a call: a handler that does nothing, no transport, no I/O but the log line."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from benchmarks.servers import HEADERS, KEY, PROJECT
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.app import open_backend
from server.auth.authenticator import KeyAuthoriser
from server.context import CallContext
from server.observability.logging import configure_logging
from server.observability.metrics import RpcMetrics
from server.observability.tracing import tracer
from server.rpc.dispatch import CallInfo, Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.registry import Registry, own_services
from server.settings import load_settings

ROUNDS = 7
CALLS = 5000


class NothingToDo:
    """VideoConversionService whose only method returns a message that was made before."""

    def __init__(self) -> None:
        self._reply = pb.ConversionJob(id="cm", status=pb.ConversionJob.PENDING)

    async def get_conversion_job(
        self, _request: pb.GetConversionJobRequest, _ctx: CallContext
    ) -> pb.ConversionJob:
        return self._reply


def dispatch_micros(*, quick: bool) -> list[float]:
    """Microseconds of processor time of one call, the mean of each round."""
    rounds, calls = (3, 1000) if quick else (ROUNDS, CALLS)
    with (
        tempfile.TemporaryDirectory(prefix="bax-bench-") as name,
        (Path(name) / "log").open("w") as log,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        configure_logging("info", stream=log)
        return runner.run(_measure(Path(name), rounds, calls))


async def _measure(folder: Path, rounds: int, calls: int) -> list[float]:
    settings = load_settings(data_dir=folder / "data", bootstrap_api_key=KEY, bootstrap_project_id=PROJECT)
    async with open_backend(settings, public_url="http://127.0.0.1", with_worker=False) as backend:
        authoriser = KeyAuthoriser(backend.keys, admin_token="operator")
        registry = Registry(own_services({"VideoConversionService": NothingToDo()}, authoriser))
        dispatcher = Dispatcher(
            idempotency=IdempotencyKeys(backend.database, backend.clock),
            clock=backend.clock,
            metrics=RpcMetrics(CollectorRegistry()),
            tracer=tracer(),
        )
        method = registry.find("baxcloud.v1.VideoConversionService/GetConversionJob")
        assert method is not None
        assert method.handler is not None
        request = pb.GetConversionJobRequest(job_id="cm4x7k9p20000v8qk3h5j2m1a")
        call = CallInfo("rest", "request", HEADERS, "127.0.0.1:1")
        await dispatcher.unary(method, lambda: request, call)
        found = []
        for _ in range(rounds):
            began = time.process_time()
            for _ in range(calls):
                await dispatcher.unary(method, lambda: request, call)
            found.append((time.process_time() - began) / calls * 1e6)
        await dispatcher.aclose()
        return found
