"""Bytes from the internet: whatever comes, the answer is a refusal, never a fault of ours (encoding-and-safety 2.4)."""

from __future__ import annotations

import asyncio
import io
import json
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generated.baxcloud.v1 import room_pb2, video_conversion_pb2
from server.transports.exchange import BodyLimits
from tests.transport.surface import ADMIN_TOKEN, KEY, PROJECT, Surface, headers_for

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    [
        "inputUrl",
        "outputFormats",
        "ffmpegPreset",
        "hlsTime",
        "s3Config",
        "categorize",
        "metadata",
        "input_url",
        "x",
    ]
)


async def raw(surface: Surface, data: bytes, *, half_close: bool = False) -> bytes:
    """What comes back for bytes on a new connection, until it is closed.

    `half_close` says that no more bytes will come, upon which uvicorn gives up a request that is not answered yet.
    """
    address = urlsplit(surface.http)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(100_000), 10)
    finally:
        writer.close()


def request(path: str, *lines: str, verb: str = "GET") -> bytes:
    sent = [f"{verb} {path} HTTP/1.1", "host: x", "connection: close", *lines]
    sent += [f"{name}: {value}" for name, value in headers_for().items()]
    return ("\r\n".join(sent) + "\r\n\r\n").encode("latin-1")


@FUZZ
@given(body=st.dictionaries(FIELDS, JSON, max_size=5))
async def test_any_json_body(surface: Surface, body: object) -> None:
    try:
        data = json.dumps(body).encode("utf-8")
    except UnicodeEncodeError:
        data = json.dumps(body, ensure_ascii=True).encode()
    outcome = await surface.rest("POST", "/video/convert", data)
    assert outcome.status in (201, 400), outcome
    twirp = await surface.twirp_json(surface.method("CreateConversionJob"), data, headers_for())
    assert twirp.status in (200, 400), twirp


@FUZZ
@given(body=st.binary(max_size=300))
async def test_any_bytes_as_a_body(surface: Surface, body: bytes) -> None:
    method = surface.method("CreateConversionJob")
    assert (await surface.rest("POST", "/video/convert", body)).status == 400
    assert (await surface.twirp_json(method, body, headers_for())).status == 400
    assert (await surface.twirp_protobuf(method, body, headers_for())).status in (200, 400)
    assert (await surface.grpc(method, body, headers_for())).code in ("ok", "invalid_argument")
    form = headers_for(**{"content-type": "multipart/form-data; boundary=B"})
    assert (await surface.rest("POST", "/video/upload", body, form)).status == 400


@FUZZ
@given(segment=st.binary(min_size=1, max_size=40), query=st.binary(max_size=60))
async def test_any_path_and_query(surface: Surface, segment: bytes, query: bytes) -> None:
    path = f"/v1/rooms/{quote(segment, safe='')}?{quote(query, safe='&=')}"
    assert (await surface.rest("GET", path)).status in (200, 400)
    assert (await surface.rest("GET", f"/video/jobs?{quote(query, safe='&=%+')}")).status in (200, 400)


@FUZZ
@given(
    value=st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=60)
)
async def test_any_header_value(surface: Surface, value: str) -> None:
    for name in (
        "authorization",
        "x-project-id",
        "idempotency-key",
        "content-type",
        "x-request-id",
        "x-twirp-timeout-ms",
    ):
        lines = [f"{name}: {value}", "content-length: 2"]
        if name != "authorization":
            lines.append(f"authorization: Bearer {KEY}")
        if name != "x-project-id":
            lines.append(f"x-project-id: {PROJECT}")
        for path in ("/video/convert", "/twirp/baxcloud.v1.RoomService/ListRooms", "/video/upload"):
            sent = (
                "\r\n".join([f"POST {path} HTTP/1.1", "host: x", "connection: close", *lines]) + "\r\n\r\n{}"
            )
            answer = await raw(surface, sent.encode("latin-1"))
            status = int(answer.split(b" ", 2)[1])
            assert status < 500 or status == 504, (name, answer)


@FUZZ
@given(data=st.binary(max_size=400))
async def test_any_bytes_on_the_wire(surface: Surface, data: bytes) -> None:
    answer = await raw(surface, data, half_close=True)
    assert not answer.startswith(b"HTTP/1.1 5"), answer


async def test_deep_json(surface: Surface) -> None:
    """Deeper than any parser likes: 400, and still 400 for what only our limit forbids."""
    method = surface.method("CreateConversionJob")
    for depth in (100, 5000, 120_000):
        deep = b"[" * depth + b"]" * depth
        body = b'{"inputUrl": "https://e.com/a", "metadata": ' + deep + b"}"
        outcome = await surface.rest("POST", "/video/convert", body)
        assert outcome.status == 400
        assert (await surface.twirp_json(method, body, headers_for())).status == 400
    # Ignored, but parsed.
    assert (
        await surface.rest("POST", "/v1/rooms", b'{"name": "a", "x": ' + b"[" * 400 + b"]" * 400 + b"}")
    ).status == 201


async def test_the_deepest_metadata_survives_every_wire(surface: Surface) -> None:
    """What REST accepts must fit protobuf's own limit when it comes back inside a list."""
    from server.rpc.json_decoder import DEEPEST

    tree: object = "leaf"
    for _ in range(DEEPEST - 1):
        tree = {"a": tree}
    seen = []

    def keep(message: object, _ctx: object) -> video_conversion_pb2.ConversionJob:
        seen.append(message)
        return video_conversion_pb2.ConversionJob()

    surface.recorder.answers["CreateConversionJob"] = keep
    body = {"inputUrl": "https://e.com/a", "metadata": tree}
    assert (await surface.rest("POST", "/video/convert", body)).status == 201
    jobs = video_conversion_pb2.ListConversionJobsResponse()
    jobs.items.add().metadata.CopyFrom(seen[0].metadata)  # type: ignore[attr-defined]
    surface.recorder.answers["ListConversionJobs"] = lambda _r, _c: jobs
    method = surface.method("ListConversionJobs")
    outcome = await surface.grpc(method, video_conversion_pb2.ListConversionJobsRequest(), headers_for())
    assert outcome.reply["items"][0]["metadata"] == tree
    assert (await surface.rest("GET", "/video/jobs")).reply["items"][0]["metadata"] == tree


async def test_body_limits(surface: Surface) -> None:
    """JSON over 256 kB and protobuf over 1 MB are refused by their announcement, with their family's shape."""
    limits = BodyLimits()
    big = b'{"name": "' + b"x" * limits.json_bytes + b'"}'
    outcome = await surface.rest("POST", "/v1/rooms", big)
    assert (outcome.status, outcome.code) == (413, "BODY_TOO_LARGE")
    method = surface.method("CreateRoom")
    message = room_pb2.CreateRoomRequest(name="a", metadata="x" * limits.message_bytes)
    data = io.BytesIO(message.SerializeToString())
    twirp = await surface.twirp_protobuf(method, data, headers_for())
    assert (twirp.status, twirp.code) == (413, "resource_exhausted")
    huge = room_pb2.CreateRoomRequest(name="a", metadata="x" * 5_000_000)
    assert (await surface.grpc(method, huge, headers_for())).code == "resource_exhausted"
    head = request("/v1/rooms", "content-length: 99999999999", verb="POST")
    assert (await raw(surface, head)).startswith(b"HTTP/1.1 413 ")


async def test_a_chunked_body_is_counted(surface: Surface) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    head = request("/v1/rooms", "transfer-encoding: chunked", verb="POST")
    assert (await raw(surface, head + chunk * 5 + b"0\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


async def test_large_headers(surface: Surface) -> None:
    answer = await raw(surface, request("/v1/rooms", "x-large: " + "x" * 20_000))
    assert answer.startswith(b"HTTP/1.1 431 ")
    many = await raw(surface, request("/v1/rooms", *(f"x-{number}: {'y' * 90}" for number in range(300))))
    assert many.startswith(b"HTTP/1.1 431 ")


async def test_header_injection(surface: Surface) -> None:
    """No value of the caller's ends up in an answer's header, but the request id, which has no line break."""
    path = "/v1/rooms/" + quote("a\r\nX-Evil: 1")
    lines = "x-request-id: a%0d%0aX-Evil: 1"
    answer = await raw(surface, request(path, lines, verb="PUT"))
    assert b"x-evil" not in answer.split(b"\r\n\r\n")[0].lower()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /v1/rooms HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/rooms HTTP/9.9\r\n\r\n",
        b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_broken_requests(surface: Surface, data: bytes) -> None:
    answer = await raw(surface, data, half_close=True)
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert (await surface.rest("GET", "/v1/rooms")).status == 200, "the server goes on"


async def test_secrets_stay_out_of_answers(surface: Surface) -> None:
    """The key is in no answer, whatever goes wrong."""
    method = surface.method("CreateConversionJob")
    outcomes = [
        await surface.rest("POST", "/video/convert", {"inputUrl": 5}),
        await surface.rest("GET", "/nope"),
        await surface.twirp_json(method, "{", headers_for()),
        await surface.grpc(method, b"\xff", headers_for()),
        await surface.rest("GET", "/v1/projects/x", None, headers_for(ADMIN_TOKEN, None)),
    ]
    for outcome in outcomes:
        assert KEY not in str(outcome)
        assert ADMIN_TOKEN not in str(outcome)
