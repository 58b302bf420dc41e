"""`Idempotency-Key`: once is enough (design section 13)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from generated.baxcloud.v1 import project_pb2, video_conversion_pb2
from server.errors import Code, ServiceError
from tests.transport.surface import (
    ADMIN_TOKEN,
    OTHER_KEY,
    OTHER_PROJECT,
    PROJECT,
    Surface,
    headers_for,
)

BODY = {"inputUrl": "https://example.com/a.mp4", "metadata": {"b": 1, "a": [None, 2]}}
REQUEST = video_conversion_pb2.CreateConversionJobRequest(input_url="https://example.com/a.mp4")


def with_key(key: str = "k-1", **more: str) -> dict[str, str]:
    return headers_for(**{"idempotency-key": key, **more})


def count_jobs(surface: Surface) -> list[int]:
    """Each creation answers another id; how many there were is in the list."""
    made = [0]

    def create(request: Any, _ctx: object) -> Any:
        made[0] += 1
        job = video_conversion_pb2.ConversionJob(id=f"cm{made[0]}", status="PENDING")
        if request.HasField("metadata"):
            job.metadata.CopyFrom(request.metadata)
        for preset in ("720p", "360p", "1080p", "480p"):
            job.rendition_urls[preset] = f"https://cdn/{preset}"
        return job

    surface.recorder.answers["CreateConversionJob"] = create
    return made


async def test_the_same_call_gives_the_same_bytes(surface: Surface) -> None:
    made = count_jobs(surface)
    answers = [await surface.rest("POST", "/video/convert", BODY, with_key()) for _ in range(3)]
    assert made == [1]
    assert {one.status for one in answers} == {201}
    assert len({one.raw for one in answers}) == 1


async def test_the_same_call_over_another_transport(surface: Surface) -> None:
    """One answer, whichever way it is asked for; each wire has its own bytes, and they never change."""
    made = count_jobs(surface)
    method = surface.method("CreateConversionJob")
    for call in (surface.grpc, surface.twirp_json, surface.twirp_protobuf):
        first, second = await call(method, REQUEST, with_key()), await call(method, REQUEST, with_key())
        assert (first.code, first.reply["id"]) == ("ok", "cm1")
        assert first.raw == second.raw
    rest = await surface.rest("POST", "/video/convert", {"inputUrl": REQUEST.input_url}, with_key())
    assert rest.reply["id"] == "cm1"
    assert made == [1]


async def test_another_body_is_refused(surface: Surface) -> None:
    made = count_jobs(surface)
    await surface.rest("POST", "/video/convert", BODY, with_key())
    other = await surface.rest("POST", "/video/convert", {**BODY, "hlsTime": 3}, with_key())
    assert (other.status, other.code) == (409, "IDEMPOTENCY_CONFLICT")
    method = surface.method("CreateConversionJob")
    grpc = await surface.grpc(method, REQUEST, with_key())
    assert (grpc.code, grpc.meta["reason"]) == ("failed_precondition", "IDEMPOTENCY_CONFLICT")
    assert made == [1]


async def test_keys_are_scoped(surface: Surface) -> None:
    """By project and by method."""
    made = count_jobs(surface)
    await surface.rest("POST", "/video/convert", BODY, with_key())
    foreign = headers_for(OTHER_KEY, OTHER_PROJECT, **{"idempotency-key": "k-1"})
    assert (await surface.rest("POST", "/video/convert", BODY, foreign)).reply["id"] == "cm2"
    assert (await surface.rest("POST", "/v1/rooms", {"name": "a"}, with_key())).status == 201
    assert made == [2]


async def test_the_operators_keys(surface: Surface) -> None:
    """A created API key is shown again to who repeats the call, and to nobody else."""
    made = [0]

    def create(_request: object, _ctx: object) -> Any:
        made[0] += 1
        return project_pb2.ApiKey(id="key_1", key=f"bax_{made[0]}")

    surface.recorder.answers["CreateApiKey"] = create
    headers = {**headers_for(ADMIN_TOKEN, None), "idempotency-key": "k"}
    path = f"/v1/projects/{PROJECT}/api-keys"
    answers = [await surface.rest("POST", path, {"name": "n"}, headers) for _ in range(2)]
    assert [one.reply["key"] for one in answers] == ["bax_1", "bax_1"]


async def test_a_failed_call_frees_its_key(surface: Surface) -> None:
    faults: list[Exception] = [ServiceError(Code.UNAVAILABLE, "later"), RuntimeError("bug")]

    def create(_request: object, _ctx: object) -> Any:
        if faults:
            raise faults.pop(0)
        return video_conversion_pb2.ConversionJob(id="cm1")

    surface.recorder.answers["CreateConversionJob"] = create
    statuses = [(await surface.rest("POST", "/video/convert", BODY, with_key())).status for _ in range(3)]
    assert statuses == [503, 500, 201]


async def test_while_the_first_call_runs(surface: Surface) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def create(_request: object, _ctx: object) -> Any:
        begun.set()
        await go.wait()
        return video_conversion_pb2.ConversionJob(id="cm1")

    surface.recorder.answers["CreateConversionJob"] = create
    first = asyncio.create_task(surface.rest("POST", "/video/convert", BODY, with_key()))
    await asyncio.wait_for(begun.wait(), 5)
    second = await surface.rest("POST", "/video/convert", BODY, with_key())
    assert (second.status, second.code) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert int(second.headers["retry-after"]) >= 1
    go.set()
    assert (await first).reply["id"] == "cm1"
    assert (await surface.rest("POST", "/video/convert", BODY, with_key())).reply["id"] == "cm1"
    assert len(surface.recorder.calls) == 1


async def test_a_caller_that_gave_up_finds_the_answer(surface: Surface, eventually: Any) -> None:
    """The deadline passes while the job is being made: the call runs on, its repetition makes no second job."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def create(_request: object, _ctx: object) -> Any:
        begun.set()
        await go.wait()
        return video_conversion_pb2.ConversionJob(id="cm1")

    surface.recorder.answers["CreateConversionJob"] = create
    method = surface.method("CreateConversionJob")
    first = await surface.grpc(method, REQUEST, with_key(), timeout=2)
    assert first.code == "deadline_exceeded"
    assert begun.is_set()
    go.set()

    async def answered() -> bool:
        outcome = await surface.grpc(method, REQUEST, with_key())
        return bool(outcome.reply == {"id": "cm1"})

    await eventually(answered)
    assert len(surface.recorder.calls) == 1


async def test_concurrent_repetitions_make_one(surface: Surface) -> None:
    made = count_jobs(surface)
    calls = [surface.rest("POST", "/video/convert", BODY, with_key()) for _ in range(12)]
    outcomes = await asyncio.gather(*calls)
    assert made == [1]
    assert {one.status for one in outcomes} <= {201, 409}


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ümlaut"])
async def test_unusable_keys(surface: Surface, key: str) -> None:
    outcome = await surface.rest("POST", "/video/convert", BODY, with_key(key))
    assert (outcome.status, outcome.meta["field"]) == (400, "Idempotency-Key")
    assert surface.recorder.calls == []


async def test_calls_that_create_nothing_ignore_it(surface: Surface) -> None:
    for _ in range(2):
        assert (await surface.rest("GET", "/video/jobs", None, with_key())).status == 200
    assert len(surface.recorder.calls) == 2


def form(data: bytes, *, hls_time: str = "2") -> bytes:
    return (
        b'--B\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        + data
        + b'\r\n--B\r\nContent-Disposition: form-data; name="hlsTime"\r\n\r\n'
        + hls_time.encode()
        + b"\r\n--B--\r\n"
    )


async def test_repeated_uploads(surface: Surface) -> None:
    """The fingerprint of an upload is its options and the digest of its bytes."""
    made = [0]

    def upload(_requests: object, _ctx: object) -> Any:
        made[0] += 1
        return video_conversion_pb2.ConversionJob(id=f"cm{made[0]}")

    surface.recorder.answers["UploadVideo"] = upload
    headers = with_key(**{"content-type": "multipart/form-data; boundary=B"})
    data = b"some bytes " * 20_000
    first = await surface.rest("POST", "/video/upload", form(data), headers)
    again = await surface.rest("POST", "/video/upload", form(data), headers)
    assert (first.status, again.status) == (201, 201)
    assert first.raw == again.raw
    for other in (form(data[:-1] + b"!"), form(data, hls_time="3")):
        refused = await surface.rest("POST", "/video/upload", other, headers)
        assert (refused.status, refused.code) == (409, "IDEMPOTENCY_CONFLICT")
    assert made == [1]
