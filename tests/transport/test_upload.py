"""`POST /video/upload`: multipart becomes a stream of messages (contract VC, B-59, B-60, B-94)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from adapters.db.unit_of_work import SqlDatabase
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.transports.exchange import BodyLimits
from server.transports.multipart import CHUNK_BYTES
from tests.transport.surface import Outcome, Surface, headers_for, running_surface

MULTIPART = {"content-type": "multipart/form-data; boundary=BOUND"}


def part(name: str, value: bytes | str, filename: str | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--BOUND\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'
    return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--BOUND--\r\n"


async def upload(surface: Surface, body: Any, headers: dict[str, str] | None = None) -> Outcome:
    return await surface.rest(
        "POST", "/video/upload", body, {**headers_for(), **MULTIPART, **(headers or {})}
    )


def received(surface: Surface) -> tuple[bytes, pb.UploadOptions]:
    messages: Any = surface.recorder.calls[-1].request
    assert [one.WhichOneof("part") for one in messages].count("options") == 1
    assert all(len(one.chunk) <= 1024 * 1024 for one in messages)
    options = next(one.options for one in messages if one.WhichOneof("part") == "options")
    return b"".join(one.chunk for one in messages), options


async def test_every_field_of_the_form(surface: Surface) -> None:
    """Lists and objects as JSON text, numbers and booleans as text, the name from the part.

    VC-31, VC-32, VC-33, VC-34, VC-35.
    """
    outcome = await upload(
        surface,
        form(
            part("outputFormats", '["360p", "720p"]'),
            part("video", b"data", "my clip.mp4"),
            part("ffmpegPreset", "veryfast"),
            part("hlsTime", "4"),
            part("s3Config", '{"bucket": "b", "secretKey": "s"}'),
            part("metadata", '{"a": [1, null]}'),
            part("categorize", "true"),
            part("moderate", "false"),
            part("unknown", "ignored"),
        ),
    )
    assert outcome.status == 201
    data, options = received(surface)
    assert data == b"data"
    assert list(options.output_formats) == ["360p", "720p"]
    assert (options.filename, options.ffmpeg_preset, options.hls_time) == ("my clip.mp4", "veryfast", 4)
    assert (options.s3_config.bucket, options.s3_config.secret_key) == ("b", "s")
    assert (options.categorize, options.moderate) == (True, False)
    assert [one.number_value for one in options.metadata.struct_value.fields["a"].list_value.values] == [1, 0]


async def test_the_file_alone(surface: Surface) -> None:
    assert (await upload(surface, form(part("video", b"x", "a.mp4")))).status == 201
    assert received(surface) == (b"x", pb.UploadOptions(filename="a.mp4"))


async def test_repeated_output_formats(surface: Surface) -> None:
    """B-94: several fields of one name are a list."""
    await upload(
        surface, form(part("outputFormats", "360p"), part("outputFormats", "480p"), part("video", b"x"))
    )
    assert list(received(surface)[1].output_formats) == ["360p", "480p"]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("outputFormats", "360p", "outputFormats"),
        ("outputFormats", "[", "outputFormats"),
        ("outputFormats", '"360p"', "outputFormats"),
        ("outputFormats", "[]", "outputFormats"),
        ("outputFormats", '["240p"]', "outputFormats[0]"),
        ("hlsTime", "99", "hlsTime"),
        ("hlsTime", "abc", "hlsTime"),
        ("hlsTime", "", "hlsTime"),
        ("hlsTime", "0x4", "hlsTime"),
        ("hlsTime", "1_0", "hlsTime"),
        ("hlsTime", "nan", "hlsTime"),
        ("hlsTime", "9" * 500, "hlsTime"),
        ("ffmpegPreset", "placebo", "ffmpegPreset"),
        ("s3Config", "bucket", "s3Config"),
        ("s3Config", '"bucket"', "s3Config"),
        ("s3Config", '{"bucket": 1}', "s3Config.bucket"),
        ("metadata", "{", "metadata"),
        ("metadata", "undefined", "metadata"),
        ("categorize", "yes", "categorize"),
        ("moderate", "1", "moderate"),
        ("ffmpegPreset", b"\xff\xfe", "ffmpegPreset"),
    ],
)
@pytest.mark.parametrize("before", [True, False], ids=["before the file", "after it"])
async def test_wrong_fields(
    surface: Surface, name: str, value: bytes | str, field: str, before: bool
) -> None:
    """B-94: 400 naming the field, wherever it stands."""
    parts = [part(name, value), part("video", b"x" * 100, "a.mp4")]
    outcome = await upload(surface, form(*(parts if before else reversed(parts))))
    assert (outcome.status, outcome.code, outcome.meta["field"]) == (400, "INVALID_ARGUMENT", field)
    assert outcome.message.startswith(f"{field}: ")


async def test_a_field_twice(surface: Surface) -> None:
    for name, value in (("hlsTime", "4"), ("metadata", "{}"), ("ffmpegPreset", "fast")):
        outcome = await upload(surface, form(part(name, value), part(name, value), part("video", b"x")))
        assert (outcome.status, outcome.meta["field"]) == (400, name)


async def test_no_file(surface: Surface) -> None:
    """VC-30."""
    for body in (form(part("hlsTime", "4")), form(), form(part("Video", b"x", "a.mp4"))):
        outcome = await upload(surface, body)
        assert (outcome.status, outcome.meta.get("field")) in {(400, "video"), (400, None)}
    outcome = await upload(surface, form(part("video", b"a", "a.mp4"), part("video", b"b", "b.mp4")))
    assert (outcome.status, outcome.meta["field"]) == (400, "video")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("clip.mp4", "clip.mp4"),
        ("C:\\\\videos\\\\clip.mp4", "clip.mp4"),
        ("../../etc/passwd", "passwd"),
        ("", ""),
        ("n\x07ame.mp4", "name.mp4"),
        ("féé.mp4", "féé.mp4"),
    ],
)
async def test_file_names(surface: Surface, sent: str, kept: str) -> None:
    """B-59: a name, never a path; controls are dropped."""
    assert (await upload(surface, form(part("video", b"x", sent)))).status == 201
    assert received(surface)[1].filename == kept


HOSTILE_DATA = {
    "line breaks": b"\r\n" * 400_000,
    "near boundaries": b"\r\n--BOUN\r\n--BOUNX\r\n-\r\n--" * 40_000,
    "two chunks and a bit": bytes(range(256)) * 9000,
    "exactly one chunk": b"\xff" * CHUNK_BYTES,
    "one more byte": b"\0" * (CHUNK_BYTES + 1),
    "nothing": b"",
}


@pytest.mark.parametrize("label", HOSTILE_DATA)
async def test_bytes_arrive_as_they_were(surface: Surface, label: str) -> None:
    data = HOSTILE_DATA[label]
    body = form(part("video", data, "a.mp4"), part("hlsTime", "3"))

    async def chunked() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_000):
            yield body[start : start + 65_000]

    assert (await upload(surface, chunked())).status == 201
    got, options = received(surface)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert options.hls_time == 3


async def test_every_split_of_a_form(surface: Surface) -> None:
    """The boundary may be cut anywhere between two reads."""
    body = form(part("video", b"\r\n--BOUN", "a.mp4"), part("hlsTime", "3"))
    for cut in range(1, len(body), 3):

        async def pieces(cut: int = cut) -> AsyncIterator[bytes]:
            yield body[:cut]
            yield body[cut:]

        outcome = await upload(surface, pieces())
        assert outcome.status == 201, (cut, outcome.message)
        data, options = received(surface)
        assert (data, options.hls_time) == (b"\r\n--BOUN", 3), cut


@pytest.fixture
async def small(sqlite_database: SqlDatabase) -> AsyncIterator[Surface]:
    limits = BodyLimits(json_bytes=2000, upload_bytes=10_000, grace_sec=2, min_rate=1000)
    async with running_surface(sqlite_database, limits=limits) as running:
        yield running


async def test_the_limit_is_inclusive(small: Surface) -> None:
    """B-60: the limit itself passes, one byte more is 413 FILE_TOO_LARGE, announced or not."""
    assert (await upload(small, form(part("video", b"x" * 10_000, "a.mp4")))).status == 201
    body = form(part("video", b"x" * 10_001, "a.mp4"))

    async def unannounced() -> AsyncIterator[bytes]:
        yield body

    for sent in (body, unannounced()):
        outcome = await upload(small, sent)
        assert (outcome.status, outcome.code, outcome.meta["field"]) == (413, "FILE_TOO_LARGE", "video")


async def test_large_fields_are_refused(small: Surface) -> None:
    outcome = await upload(small, form(part("metadata", json.dumps("x" * 3000)), part("video", b"x")))
    assert (outcome.status, outcome.code) == (413, "BODY_TOO_LARGE")
    many = [part(f"f{number}", "") for number in range(120)]
    assert (await upload(small, form(*many, part("video", b"x")))).status == 400


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 71, 400),
        ("multipart/mixed; boundary=BOUND", 415),
        ("Multipart/Form-Data; Boundary=BOUND", 201),
        ('multipart/form-data; charset=utf-8; boundary="BOUND"', 201),
    ],
)
async def test_content_types(surface: Surface, kind: str, status: int) -> None:
    body = form(part("video", b"x", "a.mp4"))
    assert (await upload(surface, body, {"content-type": kind})).status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--BOUND--",
        b"no form at all",
        form(part("video", b"x", "a.mp4"))[:-10],
        b'--BOUND\r\nContent-Disposition: form-data; name="video"\r\n'
        b"X: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--BOUND--\r\n",
        b"--BOUND\r\n\r\nno headers\r\n--BOUND--\r\n",
        b"--BOUND\r\nbad header\r\n\r\nx\r\n--BOUND--\r\n",
    ],
    ids=range(7),
)
async def test_broken_forms(surface: Surface, body: bytes) -> None:
    outcome = await upload(surface, body)
    assert (outcome.status, outcome.code) == (400, "INVALID_ARGUMENT")


async def test_credentials_come_before_the_body(surface: Surface) -> None:
    """Nothing of the file is read for a caller without a key."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 200_000_000:
            read += 65_536
            yield b"x" * 65_536

    try:
        async with surface.session.post(
            f"{surface.http}/video/upload", data=endless(), headers=MULTIPART
        ) as answer:
            assert answer.status == 401
    except ConnectionError:
        pass  # the client may notice the closed connection before it reads the answer
    assert read < 20_000_000


class Wire:
    """A connection on which a test says exactly what it wants."""

    def __init__(self, surface: Surface) -> None:
        self._address = urlsplit(surface.http)

    async def __aenter__(self) -> Self:
        host, port = self._address.hostname, self._address.port
        self.reader, self.writer = await asyncio.open_connection(host, port)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await self.reader.readexactly(length)


def head(length: int | None, **more: str) -> bytes:
    lines = ["POST /video/upload HTTP/1.1", "host: x"]
    lines += [f"{name}: {value}" for name, value in {**headers_for(), **MULTIPART, **more}.items()]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_too_large_by_its_announcement(surface: Surface) -> None:
    """VC-29: 413 before a byte of the body, and no `100 Continue` for it; the connection ends afterwards."""
    async with Wire(surface) as wire:
        await wire.send(head(2 * 1024**3 + 1024**2, expect="100-continue"))
        answer = await wire.answer()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"FILE_TOO_LARGE" in answer
        assert b"connection: close" in answer.lower()
        assert await asyncio.wait_for(wire.reader.read(), 10) == b""
    assert surface.recorder.calls == []


async def test_an_allowed_upload_is_asked_to_continue(surface: Surface) -> None:
    body = form(part("video", b"x", "a.mp4"))
    async with Wire(surface) as wire:
        await wire.send(head(len(body), expect="100-continue"))
        assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await wire.send(body)
        assert (await wire.answer()).startswith(b"HTTP/1.1 201 ")


async def test_the_client_goes_away(surface: Surface, eventually: Any) -> None:
    """The handler sees the end as an error, so nothing is kept; the call is logged as cancelled."""
    body = form(part("video", b"x" * 3_000_000, "a.mp4"))
    async with Wire(surface) as wire:
        await wire.send(head(len(body)) + body[:2_000_000])

    async def counted() -> bool:
        async with surface.session.get(f"{surface.http}/metrics") as answer:
            text = await answer.text()
        return 'code="canceled",rpc="baxcloud.v1.VideoConversionService/UploadVideo"' in text

    await eventually(counted)
    assert surface.recorder.calls == [], "the recording service notes a call only when it has all of it"


async def test_a_body_that_stalls_is_cut_off(small: Surface) -> None:
    """A client must deliver at least the minimum rate after the grace time."""
    async with Wire(small) as wire:
        await wire.send(head(5000) + part("video", b"x" * 10, "a.mp4"))
        answer = await wire.answer()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"BODY_TOO_SLOW" in answer


async def test_slow_json_is_cut_off(small: Surface) -> None:
    async with Wire(small) as wire:
        await wire.send(head(100).replace(b"/video/upload", b"/video/convert") + b"{")
        assert (await wire.answer()).startswith(b"HTTP/1.1 408 ")


async def test_a_slow_handler_slows_the_client_down(surface: Surface, eventually: Any) -> None:
    """Back-pressure: what is not taken is not read, so little is in memory."""
    taken = asyncio.Event()
    stopped_at = 0
    sent = 0

    class Slow:
        async def upload_video(
            self, requests: AsyncIterator[pb.UploadVideoRequest], _ctx: object
        ) -> pb.ConversionJob:
            async for _ in requests:
                taken.set()
                await asyncio.Event().wait()
            raise AssertionError

    method = surface.method("UploadVideo")
    object.__setattr__(method, "handler", Slow().upload_video)

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("video", b"", "a.mp4")[:-2]
        while True:
            sent += 65_536
            yield b"x" * 65_536

    call = asyncio.create_task(upload(surface, endless()))
    await asyncio.wait_for(taken.wait(), 10)

    def stands_still() -> bool:
        nonlocal stopped_at
        before, stopped_at = stopped_at, sent
        return before == sent

    await eventually(stands_still, every=0.3)
    assert sent < 40_000_000, "the socket buffers, no more"
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_upload_over_grpc(surface: Surface) -> None:
    """The same call as a client stream; options may come before or after the bytes, and are checked alike."""
    method = surface.method("UploadVideo")
    stub = surface.channel.stream_unary(f"/{method.full_name}")

    async def stream(*messages: pb.UploadVideoRequest) -> pb.ConversionJob:
        call = stub((one.SerializeToString() for one in messages), metadata=tuple(headers_for().items()))
        return pb.ConversionJob.FromString(await call)

    options = pb.UploadVideoRequest(options=pb.UploadOptions(filename="a.mp4", hls_time=4))
    chunk = pb.UploadVideoRequest(chunk=b"x" * CHUNK_BYTES)
    for messages in ((options, chunk, chunk), (chunk, options)):
        await stream(*messages)
        assert surface.recorder.calls[-1].request == list(messages)
    for wrong in (pb.UploadVideoRequest(options=pb.UploadOptions(hls_time=99)), pb.UploadVideoRequest()):
        outcome = await surface.grpc(method, wrong, headers_for())
        assert outcome.code == "invalid_argument"
    rest = await upload(surface, form(part("hlsTime", "99"), part("video", b"x")))
    grpc = await surface.grpc(
        method, pb.UploadVideoRequest(options=pb.UploadOptions(hls_time=99)), headers_for()
    )
    assert grpc.message == rest.message
