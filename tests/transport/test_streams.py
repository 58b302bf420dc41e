"""Server streams: gRPC messages and server-sent events (design section 13, `WatchConversionJob`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.errors import Code, ServiceError
from server.rpc.registry import Registry, RegistryError, Rule, ServiceBinding
from server.transports.exchange import BodyLimits, Exchange
from server.transports.rest import rest_table
from server.transports.sse import serve_events
from tests.transport.surface import Surface, headers_for

REQUEST = pb.WatchConversionJobRequest(job_id="cm1")
ROUTE = "/video/jobs/cm1/events"
Jobs = AsyncIterator[pb.ConversionJob]


def answers(surface: Surface, stream: Callable[[Any, Any], Jobs]) -> None:
    surface.recorder.answers["WatchConversionJob"] = stream


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_events(surface: Surface) -> None:
    """`event: job`, the data is the REST form of the reply, and the stream ends with the job."""

    async def jobs(_request: Any, _ctx: Any) -> Jobs:
        yield pb.ConversionJob(id="cm1", status="PENDING")
        yield pb.ConversionJob(id="cm1", status="COMPLETED", duration_sec=5, error_message="line\nbreak")

    answers(surface, jobs)
    async with surface.session.get(surface.http + ROUTE, headers=headers_for()) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        events = events_of(await answer.text())
    assert [name for name, _ in events] == ["job", "job"]
    assert events[1][1]["status"] == "COMPLETED"
    assert events[1][1]["errorMessage"] == "line\nbreak"
    grpc = await surface.grpc(surface.method("WatchConversionJob"), REQUEST, headers_for())
    assert [job["status"] for job in grpc.reply] == ["PENDING", "COMPLETED"]


async def test_errors_before_the_first_event_are_plain_answers(surface: Surface) -> None:
    async def jobs(_request: Any, _ctx: Any) -> Jobs:
        for _ in range(1):
            raise ServiceError(Code.NOT_FOUND, "job cm1 not found")
        yield pb.ConversionJob()

    answers(surface, jobs)
    outcome = await surface.rest("GET", ROUTE)
    assert (outcome.status, outcome.code, outcome.message) == (404, "NOT_FOUND", "job cm1 not found")
    assert (await surface.rest("GET", ROUTE, None, {})).status == 401
    assert (await surface.rest("GET", ROUTE, None, headers_for(project=None))).status == 400


async def test_errors_after_it_are_events(surface: Surface) -> None:
    async def jobs(_request: Any, _ctx: Any) -> Jobs:
        yield pb.ConversionJob(id="cm1")
        raise RuntimeError("secret")

    answers(surface, jobs)
    async with surface.session.get(surface.http + ROUTE, headers=headers_for()) as answer:
        events = events_of(await answer.text())
    assert events[1][0] == "error"
    assert events[1][1]["error"]["message"] == "internal error"
    grpc = await surface.grpc(surface.method("WatchConversionJob"), REQUEST, headers_for())
    assert (grpc.code, grpc.message) == ("internal", "internal error")


def endless(begun: asyncio.Event, ended: asyncio.Event) -> Callable[[Any, Any], Jobs]:
    async def jobs(_request: Any, _ctx: Any) -> Jobs:
        try:
            yield pb.ConversionJob(id="cm1")
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    return jobs


async def test_a_client_that_leaves_ends_the_stream(surface: Surface) -> None:
    for transport in ("rest", "grpc"):
        begun, ended = asyncio.Event(), asyncio.Event()
        answers(surface, endless(begun, ended))
        if transport == "rest":
            async with surface.session.get(surface.http + ROUTE, headers=headers_for()) as answer:
                await answer.content.readline()
                await asyncio.wait_for(begun.wait(), 5)
                answer.close()
        else:
            path = f"/{surface.method('WatchConversionJob').full_name}"
            call = surface.channel.unary_stream(path)(
                REQUEST.SerializeToString(), metadata=tuple(headers_for().items())
            )
            await call.read()
            await asyncio.wait_for(begun.wait(), 5)
            call.cancel()
        await asyncio.wait_for(ended.wait(), 5)


async def test_streams_end_when_the_server_goes_down(surface: Surface) -> None:
    """Nobody has to wait for a stream that would never end by itself."""
    begun, ended = asyncio.Event(), asyncio.Event()
    answers(surface, endless(begun, ended))
    async with surface.session.get(surface.http + ROUTE, headers=headers_for()) as answer:
        await asyncio.wait_for(begun.wait(), 5)
        surface.dispatcher.end_streams()
        events = events_of(await answer.text())
    assert events[-1][1]["error"]["code"] == "UNAVAILABLE"
    assert ended.is_set()


async def test_a_deadline_ends_a_stream(surface: Surface) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    answers(surface, endless(begun, ended))
    grpc = await surface.grpc(surface.method("WatchConversionJob"), REQUEST, headers_for(), timeout=2)
    assert grpc.code == "deadline_exceeded"
    await asyncio.wait_for(ended.wait(), 5)


class Recording:
    """A bare ASGI server side: what was sent, and a client that leaves when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.gone = asyncio.Event()
        self.got_keep_alive = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])
            if message["body"].startswith(b":"):
                self.got_keep_alive.set()


async def test_keep_alive_comments() -> None:
    """A silent stream says something now and then, so that no proxy gives it up."""
    side = Recording()
    scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "client": None}
    exchange = Exchange(scope, side.receive, side.send, BodyLimits())

    async def silent() -> Jobs:
        await asyncio.Event().wait()
        yield pb.ConversionJob()

    serving = asyncio.create_task(serve_events(exchange, silent(), "job", 0.01))
    await asyncio.wait_for(side.got_keep_alive.wait(), 5)
    side.gone.set()
    await asyncio.wait_for(serving, 5)
    assert side.sent[0] == b": keep-alive\n\n"


class Anyone:
    def check(self, method: object) -> None:
        """Everything may be served."""


async def test_a_stream_needs_a_name_for_its_events() -> None:
    service = pb.DESCRIPTOR.services_by_name["VideoConversionService"]
    registry = Registry([ServiceBinding(service, None, Anyone(), lambda _method: Rule(access=1))])  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="WatchConversionJob"):
        rest_table(registry)
