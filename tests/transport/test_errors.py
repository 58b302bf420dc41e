"""One error, four wires: the table of codes, what they carry, and what never gets out (contract C.7, B-31)."""

from __future__ import annotations

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from generated.baxcloud.v1 import room_pb2
from server.errors import RENDERINGS, Code, ServiceError
from tests.transport.surface import KEY, Outcome, Surface, headers_for

REQUEST = room_pb2.GetRoomRequest(name="r")
ROUTE = "/v1/rooms/r"


async def raised(surface: Surface, fault: Exception) -> tuple[Outcome, Outcome, Outcome, Outcome]:
    """`fault` from a handler, as gRPC, Twirp JSON, Twirp protobuf and REST tell it."""

    def fail(_request: object, _ctx: object) -> object:
        raise fault

    surface.recorder.answers["GetRoom"] = fail
    method = surface.method("GetRoom")
    return (
        await surface.grpc(method, REQUEST, headers_for()),
        await surface.twirp_json(method, REQUEST, headers_for()),
        await surface.twirp_protobuf(method, REQUEST, headers_for()),
        await surface.rest("GET", ROUTE),
    )


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.INTERNAL])
async def test_every_code_on_every_transport(surface: Surface, code: Code) -> None:
    shown = RENDERINGS[code]
    fault = ServiceError(code, "it went wrong: é", field="a.b", meta={"jobId": "cm1"})
    grpc, twirp_json, twirp_protobuf, rest = await raised(surface, fault)
    assert {one.message for one in (grpc, twirp_json, twirp_protobuf, rest)} == {"it went wrong: é"}
    assert grpc.meta == {"field": "a.b", "jobid": "cm1"}
    for twirp in (twirp_json, twirp_protobuf):
        assert (twirp.code, twirp.status) == (code.value, shown.twirp_http)
        assert twirp.meta == {"field": "a.b", "jobId": "cm1"}
        assert twirp.headers["content-type"] == "application/json"
    assert (rest.code, rest.status) == (shown.rest_code, shown.rest_http)
    assert rest.reply == {
        "success": False,
        "error": {
            "code": shown.rest_code,
            "message": "it went wrong: é",
            "details": {"jobId": "cm1", "field": "a.b"},
        },
    }


async def test_grpc_numbers(surface: Surface) -> None:
    """The statuses of gRPC by their numbers, all of them but OK."""
    import grpc

    numbers = {status.value[0] for status in grpc.StatusCode} - {0}
    assert {shown.grpc for shown in RENDERINGS.values()} == numbers


async def test_reasons_refine_the_code(surface: Surface) -> None:
    """B-31: a reason is REST's `error.code` and in `meta` elsewhere; some have a status of their own."""
    fault = ServiceError(
        Code.FAILED_PRECONDITION, "too late", reason="JOB_NOT_CANCELLABLE", retry_after_sec=7
    )
    grpc, twirp, _, rest = await raised(surface, fault)
    assert (grpc.code, grpc.meta["reason"], grpc.headers["retry-after"]) == (
        "failed_precondition",
        "JOB_NOT_CANCELLABLE",
        "7",
    )
    assert (twirp.status, twirp.meta["reason"], twirp.headers["retry-after"]) == (
        412,
        "JOB_NOT_CANCELLABLE",
        "7",
    )
    assert (rest.status, rest.code, rest.headers["retry-after"]) == (409, "JOB_NOT_CANCELLABLE", "7")
    *_, rest = await raised(surface, ServiceError(Code.RESOURCE_EXHAUSTED, "big", reason="FILE_TOO_LARGE"))
    assert rest.status == 413


async def test_unexpected_faults_stay_inside(surface: Surface) -> None:
    """The caller gets `internal error` and the request id; the traceback is in the log only."""
    with capture_logs() as logs:
        outcomes = await raised(surface, RuntimeError(f"secret detail {KEY}"))
    for outcome in outcomes:
        assert outcome.message == "internal error"
        assert "secret" not in str(outcome)
    assert outcomes[3].status == 500
    assert outcomes[3].meta["requestId"] == outcomes[3].headers["x-request-id"]
    faults = [entry for entry in logs if entry["event"] == "rpc"]
    assert len(faults) == 4
    for entry in faults:
        assert entry["log_level"] == "error"
        assert isinstance(entry["exc_info"], RuntimeError)


async def test_a_wrong_reply_is_our_fault(surface: Surface) -> None:
    surface.recorder.answers["GetRoom"] = lambda _request, _ctx: room_pb2.Track()
    assert (await surface.rest("GET", ROUTE)).status == 500


async def test_hostile_text_in_errors(surface: Surface) -> None:
    """Line breaks, long texts and non-ASCII meta reach no header raw, and bounds hold."""
    fault = ServiceError(
        Code.ABORTED,
        "line\r\nX-Evil: 1 " + "x" * 10_000,
        reason="ODD",
        meta={"näme\r\n": "wörth\r\nX-Evil: 1"},
    )
    grpc, twirp, _, rest = await raised(surface, fault)
    for outcome in (grpc, twirp, rest):
        assert len(outcome.message) == 2000
        assert "x-evil" not in {name.lower() for name in outcome.headers}
    assert grpc.meta["n-me--"] == "w%C3%B6rth%0D%0AX-Evil: 1"


async def test_deadline(surface: Surface) -> None:
    """A call that outlasts what its caller allows ends with deadline_exceeded; its handler is stopped."""
    stopped = asyncio.Event()

    async def stall(_request: object, _ctx: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    surface.recorder.answers["GetRoom"] = stall
    method = surface.method("GetRoom")
    # Long enough for the handler to begin.
    assert (await surface.grpc(method, REQUEST, headers_for(), timeout=1.5)).code == "deadline_exceeded"
    await asyncio.wait_for(stopped.wait(), 5)
    stopped.clear()
    impatient = headers_for(**{"x-twirp-timeout-ms": "1500"})
    twirp = await surface.twirp_json(method, REQUEST, impatient)
    assert (twirp.code, twirp.status) == ("deadline_exceeded", 408)
    await asyncio.wait_for(stopped.wait(), 5)
    rest = await surface.rest("GET", ROUTE, None, impatient)
    assert (rest.code, rest.status) == ("DEADLINE_EXCEEDED", 504)
    assert surface.recorder.calls[-1].ctx.deadline is not None


async def test_a_handlers_own_timeout_is_not_the_callers_deadline(surface: Surface) -> None:
    *_, rest = await raised(surface, TimeoutError("some socket"))
    assert (rest.status, rest.message) == (500, "internal error")


async def test_problem_documents(surface: Surface) -> None:
    """B-31: RTCstack's routes answer RFC 9457 problems, of RTCstack's types."""

    def fail(_request: object, _ctx: object) -> object:
        raise ServiceError(Code.NOT_FOUND, "room r is not being recorded")

    surface.recorder.answers["StopRoomRecording"] = fail
    outcome = await surface.rest("POST", "/v1/rooms/r/recording/stop", {})
    assert outcome.status == 404
    assert outcome.headers["content-type"] == "application/problem+json"
    assert outcome.reply == {
        "type": "https://rtcstack.dev/errors/not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "room r is not being recorded",
    }
    assert (await surface.rest("GET", "/v1/rooms/r/recording", None, {})).reply["status"] == 401


async def test_log_line_and_metrics(surface: Surface) -> None:
    """One line per call with fixed keys and no secret; the metrics count it."""
    with capture_logs() as logs:
        await surface.rest("GET", ROUTE + "?token=hidden", None, headers_for(**{"x-request-id": "req-1"}))
    (line,) = [entry for entry in logs if entry["event"] == "rpc"]
    assert {name: line[name] for name in ("rpc", "transport", "code", "project", "request_id")} == {
        "rpc": "baxcloud.v1.RoomService/GetRoom",
        "transport": "rest",
        "code": "ok",
        "project": "cl_proj_abc123",
        "request_id": "req-1",
    }
    assert line["duration_ms"] >= 0
    assert line["peer"].startswith("127.0.0.1:")
    assert KEY not in json.dumps(line)
    assert "hidden" not in json.dumps(line)
    async with surface.session.get(f"{surface.http}/metrics") as answer:
        text = await answer.text()
    assert 'bax_rpc_calls_total{code="ok",rpc="baxcloud.v1.RoomService/GetRoom",transport="rest"} 1.0' in text
    assert 'bax_rpc_running{rpc="baxcloud.v1.RoomService/GetRoom",transport="rest"} 0.0' in text


@pytest.mark.parametrize("given", ["req_1", "a-b.c:d_9", "x" * 128])
async def test_request_id_is_echoed(surface: Surface, given: str) -> None:
    headers = headers_for(**{"x-request-id": given})
    method = surface.method("GetRoom")
    assert (await surface.rest("GET", ROUTE, None, headers)).headers["x-request-id"] == given
    assert (await surface.twirp_json(method, REQUEST, headers)).headers["x-request-id"] == given
    call = surface.channel.unary_unary(f"/{method.full_name}")(
        REQUEST.SerializeToString(), metadata=tuple(headers.items())
    )
    assert dict(await call.initial_metadata())["x-request-id"] == given
    await call


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "ü", '"quoted"'])
async def test_an_odd_request_id_is_replaced(surface: Surface, given: str) -> None:
    outcome = await surface.rest("GET", ROUTE, None, headers_for(**{"x-request-id": given}))
    assert outcome.headers["x-request-id"].startswith("req_")
