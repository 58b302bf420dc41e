"""Downloads from honest and dishonest sources over real sockets (VC-73, B-65, encoding-and-safety 2.8 case 20)."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
import traceback
from pathlib import Path

import pytest

from adapters.http.download import FetchLimits, HttpSourceFetcher
from server.errors import ServiceError
from server.ports.fetch import Downloaded, DownloadError
from tests.integration.http_sources import (
    PRIVATE,
    PUBLIC,
    Request,
    Respond,
    head,
    public_is_loopback_2,
    serve,
)

BODY = random.Random(7).randbytes(5_000_001)
OTHER = random.Random(8).randbytes(2_500_000)


class Progress:
    """Records the progress, and lets a server wait until the client has stored something more."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []
        self._changed = asyncio.Event()

    def __call__(self, received: int, total: int | None) -> None:
        self.seen.append((received, total))
        self._changed.set()

    async def beyond(self, received: int) -> None:
        async with asyncio.timeout(10):
            while not self.seen or self.seen[-1][0] <= received:
                self._changed.clear()
                await self._changed.wait()


def fetcher(limits: FetchLimits | None = None) -> HttpSourceFetcher:
    return HttpSourceFetcher(public_is_loopback_2(), limits=limits, backoff_sec=(0, 0, 0))


async def fetch(
    url: str, folder: Path, *, limits: FetchLimits | None = None, progress: Progress | None = None
) -> tuple[Downloaded, list[tuple[int, int | None]]]:
    progress = progress or Progress()
    downloaded = await fetcher(limits).fetch(url, folder / "input", on_progress=progress)
    return downloaded, progress.seen


async def failure(url: str, folder: Path, *, limits: FetchLimits | None = None) -> DownloadError:
    with pytest.raises(DownloadError) as raised:
        await fetch(url, folder, limits=limits)
    assert list(folder.iterdir()) == [], "nothing is left behind"
    return raised.value


def range_start(request: Request) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "bytes=0-"))
    assert match is not None
    return int(match[1])


def ranged(
    body: bytes, validator: dict[str, str], progress: Progress, *, cut: int = 0, cuts: int = 0
) -> Respond:
    """A server that honours Range; its first `cuts` answers break off after `cut` bytes, once some are stored."""

    async def respond(request: Request) -> None:
        start = range_start(request)
        rest = body[start:]
        headers = {"Content-Length": str(len(rest)), **validator}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        await request.send(head(206 if start else 200, headers))
        if request.number < cuts:
            await request.send(rest[:cut])
            await progress.beyond(start)
            request.reset()
        else:
            await request.send(rest)

    return respond


async def test_brings_the_whole_file(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.answer(200, BODY)

    async with serve(respond) as source:
        downloaded, progress = await fetch(source.url("/a%2Fb.mp4?X-Sig=%2f+%3D&e=%C3%A9"), tmp_path)
    assert downloaded == Downloaded(tmp_path / "input", len(BODY))
    assert downloaded.path.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["input"]
    assert progress[0] == (0, len(BODY))
    assert progress[-1] == (len(BODY), len(BODY))
    assert progress == sorted(progress)
    (request,) = source.requests
    assert request.path == "/a%2Fb.mp4?X-Sig=%2f+%3D&e=%C3%A9"
    assert request.headers["host"] == f"media.test:{source.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert not {"range", "cookie", "authorization"} & set(request.headers)


async def test_a_chunked_source_has_no_total(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.send(head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n0\r\n\r\n")

    async with serve(respond) as source:
        downloaded, progress = await fetch(source.url(), tmp_path)
    assert downloaded.path.read_bytes() == b"hello"
    assert progress[-1] == (5, None)


@pytest.mark.parametrize("status", [403, 404, 408, 410, 429, 500, 503, 204, 206, 416, 304])
async def test_one_try_and_three_retries(tmp_path: Path, status: int) -> None:
    """VC-73, B-65: four requests, and the seed's sentence."""

    async def respond(request: Request) -> None:
        await request.answer(status, b"" if status in {204, 304} else b"secret details")

    async with serve(respond) as source:
        error = await failure(source.url("/x.mp4"), tmp_path)
    assert error.message == f"HTTP {status} fetching input URL after 3 retries"
    assert not error.timed_out
    assert len(source.requests) == 4


async def test_recovers_within_the_retries(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.answer(503 if request.number < 3 else 200, BODY)

    async with serve(respond) as source:
        downloaded, _ = await fetch(source.url(), tmp_path)
    assert downloaded.path.read_bytes() == BODY
    assert len(source.requests) == 4


@pytest.mark.parametrize(
    "validator", [{"ETag": '"v1"'}, {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}], ids=["etag", "date"]
)
async def test_resumes_after_each_of_three_resets(tmp_path: Path, validator: dict[str, str]) -> None:
    """2.8 case 20: resets at half of what is left, three times; the fourth request brings the rest."""
    progress = Progress()
    async with serve(ranged(BODY, validator, progress, cut=1_500_000, cuts=3)) as source:
        downloaded, seen = await fetch(source.url(), tmp_path, progress=progress)
    assert downloaded.path.read_bytes() == BODY
    starts = [range_start(request) for request in source.requests]
    assert len(starts) == 4
    assert starts == sorted(set(starts)), "each request goes on where the last one ended"
    assert [request.headers.get("if-range") for request in source.requests] == [
        None,
        *[*validator.values()] * 3,
    ]
    assert seen == sorted(seen), "progress never goes back"


@pytest.mark.parametrize("validator", [{}, {"ETag": 'W/"v1"'}], ids=["none", "weak"])
async def test_starts_over_without_a_strong_validator(tmp_path: Path, validator: dict[str, str]) -> None:
    progress = Progress()
    async with serve(ranged(BODY, validator, progress, cut=len(BODY) // 2, cuts=1)) as source:
        downloaded, _ = await fetch(source.url(), tmp_path, progress=progress)
    assert downloaded.path.read_bytes() == BODY
    assert ["range" in request.headers for request in source.requests] == [False, False]


@pytest.mark.parametrize("honours_if_range", [True, False])
async def test_never_mixes_two_versions(tmp_path: Path, honours_if_range: bool) -> None:
    """2.8 case 20: the ETag changes between ranges; with or without If-Range support the result is one version."""
    progress = Progress()

    async def respond(request: Request) -> None:
        start = range_start(request)
        if request.number == 0:
            await request.send(
                head(200, {"Content-Length": str(len(BODY)), "ETag": '"v1"'}) + BODY[:2_000_000]
            )
            await progress.beyond(0)
            request.reset()
        elif start and not honours_if_range:
            rest = OTHER[start:]
            span = f"bytes {start}-{len(OTHER) - 1}/{len(OTHER)}"
            await request.answer(206, rest, ETag='"v2"', Content_Range=span)
        else:
            await request.answer(200, OTHER, ETag='"v2"')

    async with serve(respond) as source:
        downloaded, _ = await fetch(source.url(), tmp_path, progress=progress)
    assert downloaded.path.read_bytes() == OTHER
    assert source.requests[1].headers["if-range"] == '"v1"'


async def test_a_range_that_starts_elsewhere_is_not_appended(tmp_path: Path) -> None:
    progress = Progress()

    async def respond(request: Request) -> None:
        start = range_start(request)
        if request.number == 0:
            await request.send(
                head(200, {"Content-Length": str(len(BODY)), "ETag": '"v"'}) + BODY[:2_000_000]
            )
            await progress.beyond(0)
            request.reset()
        elif start:
            span = f"bytes {start - 7}-{len(BODY) - 8}/{len(BODY)}"
            await request.answer(206, BODY[start - 7 : -7], ETag='"v"', Content_Range=span)
        else:
            await request.answer(200, BODY, ETag='"v"')

    async with serve(respond) as source:
        downloaded, _ = await fetch(source.url(), tmp_path, progress=progress)
    assert downloaded.path.read_bytes() == BODY
    assert "range" in source.requests[1].headers


@pytest.mark.parametrize("complete", [True, False])
async def test_416_means_done_or_start_over(tmp_path: Path, complete: bool) -> None:
    """A chunked answer cut before its end mark: everything may be here already, which only the server can tell."""
    progress = Progress()

    async def respond(request: Request) -> None:
        if request.number == 0:
            await request.send(head(200, {"Transfer-Encoding": "chunked", "ETag": '"v"'}))
            await request.send(f"{2**21:x}\r\n".encode() + OTHER[: 2**21])
            await progress.beyond(0)
            request.reset()
        elif "range" in request.headers:
            stored = range_start(request)
            await request.answer(416, Content_Range=f"bytes */{stored if complete else stored - 1}")
        else:
            await request.answer(200, BODY)

    async with serve(respond) as source:
        downloaded, _ = await fetch(source.url(), tmp_path, progress=progress)
    if complete:
        assert downloaded.path.read_bytes() == OTHER[: downloaded.size]
        assert downloaded.size == range_start(source.requests[1]) >= 2**20
    else:
        assert downloaded.path.read_bytes() == BODY
    assert len(source.requests) == (2 if complete else 3)


async def test_a_trickle_is_given_up(tmp_path: Path) -> None:
    """2.8 case 20: 1 byte at a time stays under the least rate."""

    async def respond(request: Request) -> None:
        await request.send(head(200, {"Content-Length": "1000000"}))
        while not request.writer.is_closing():
            await request.send(b"x")
            await asyncio.sleep(0.01)

    async with serve(respond) as source:
        limits = FetchLimits(min_bytes_per_sec=100_000, rate_window_sec=0.1)
        error = await failure(source.url(), tmp_path, limits=limits)
    assert error.message == "timed out fetching input URL after 3 retries"
    assert error.timed_out
    assert len(source.requests) == 4


async def test_a_steady_source_passes_several_rate_windows(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.send(head(200, {"Content-Length": "30000"}))
        for _ in range(30):
            await request.send(b"x" * 1000)
            await asyncio.sleep(0.1)

    async with serve(respond) as source:
        # A window longer than most stalls: in one that is slept through, nothing comes.
        limits = FetchLimits(min_bytes_per_sec=1000, rate_window_sec=1.0)
        downloaded, _ = await fetch(source.url(), tmp_path, limits=limits)
    assert downloaded.size == 30_000
    assert len(source.requests) == 1


async def test_a_source_that_never_answers(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await asyncio.Event().wait()

    async with serve(respond) as source:
        error = await failure(source.url(), tmp_path, limits=FetchLimits(answer_sec=0.5))
    assert error.message == "timed out fetching input URL after 3 retries"
    assert error.timed_out
    assert len(source.requests) == 4


async def test_the_total_deadline_ends_all_tries(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.send(head(200, {"Transfer-Encoding": "chunked"}))
        while not request.writer.is_closing():
            await request.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with serve(respond) as source:
        error = await failure(source.url(), tmp_path, limits=FetchLimits(total_sec=1.0))
    assert error.message == "timed out fetching input URL after 0 retries"
    assert error.timed_out
    assert len(source.requests) == 1


async def test_a_declared_size_over_the_cap_is_refused_at_once(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.send(head(200, {"Content-Length": "1001"}))

    async with serve(respond) as source:
        error = await failure(source.url(), tmp_path, limits=FetchLimits(max_bytes=1000))
    assert error.message == "input is larger than 1000 bytes"
    assert len(source.requests) == 1


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_an_endless_body_ends_at_the_cap(tmp_path: Path, framing: str) -> None:
    """2.8 case 20."""
    ended = asyncio.Event()

    async def respond(request: Request) -> None:
        chunk = b"x" * 65536
        if framing == "chunked":
            chunk = b"10000\r\n" + chunk + b"\r\n"
        await request.send(head(200, {"Transfer-Encoding": "chunked"} if framing == "chunked" else {}))
        try:
            while True:
                await request.send(chunk)
        except ConnectionError:
            ended.set()

    async with serve(respond) as source:
        error = await failure(source.url(), tmp_path, limits=FetchLimits(max_bytes=5_000_000))
        await asyncio.wait_for(ended.wait(), 10)
    assert error.message == "input is larger than 5000000 bytes"
    assert len(source.requests) == 1


async def test_the_cap_itself_is_allowed(tmp_path: Path) -> None:
    async def respond(request: Request) -> None:
        await request.answer(200, BODY)

    async with serve(respond) as source:
        downloaded, _ = await fetch(source.url(), tmp_path, limits=FetchLimits(max_bytes=len(BODY)))
    assert downloaded.size == len(BODY)


@pytest.mark.parametrize(
    "answer",
    [
        head(200, {"Content-Length": "1000"}) + b"x" * 999,
        head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\nzz\r\n",
        head(200, {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n",
        head(200, {"Content-Length": "x"}) + b"hello",
        head(200, {"Content-Length": "5", "X": "y" * 100_000}) + b"hello",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
    ids=["short", "bad-chunk", "no-end", "bad-length", "huge-header", "not-http", "nothing"],
)
async def test_broken_answers_are_one_failure(tmp_path: Path, answer: bytes) -> None:
    """2.8 case 20: wrong Content-Length; 2.1 rule 9: no banner in the message."""

    async def respond(request: Request) -> None:
        await request.send(answer)
        request.writer.close()

    async with serve(respond) as source:
        error = await failure(source.url(), tmp_path)
    assert error.message == "could not fetch input URL after 3 retries"
    assert len(source.requests) == 4


async def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path) -> None:
    """2.8 case 33: an OSError, which the job may retry later, not a fault of the source."""

    async def respond(request: Request) -> None:
        await request.send(head(200, {"Content-Length": str(1 << 60)}))

    async with serve(respond) as source:
        with pytest.raises(OSError) as raised:
            await fetch(source.url(), tmp_path, limits=FetchLimits(max_bytes=1 << 62))
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    assert len(source.requests) == 1


async def test_a_disk_that_fills_meanwhile(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "input.part").symlink_to(full)

    async def respond(request: Request) -> None:
        await request.answer(200, BODY)

    async with serve(respond) as source:
        with pytest.raises(OSError) as raised:
            await fetch(source.url(), tmp_path)
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    assert len(source.requests) == 1


async def test_a_cancelled_download_leaves_nothing(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def respond(request: Request) -> None:
        await request.send(head(200, {"Content-Length": str(len(BODY))}) + BODY[:2_000_000])
        started.set()
        await asyncio.Event().wait()

    async with serve(respond) as source:
        task = asyncio.ensure_future(fetch(source.url(), tmp_path))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(tmp_path.iterdir()) == []


async def test_blocked_refused_and_unknown_look_the_same(tmp_path: Path) -> None:
    """Design 13, 2.1 rule 9: the caller cannot tell them apart."""

    async def respond(request: Request) -> None:
        await request.answer(200, BODY)

    async with serve(respond, host=PRIVATE) as canary, serve(respond) as closed:
        pass
    async with serve(respond, host=PRIVATE) as canary:
        errors = [
            await failure(url, tmp_path)
            for url in (
                closed.url(),
                canary.url(name="inside.test"),
                canary.url(name=PRIVATE),
                closed.url(name="unknown.test"),
                "ftp://media.test/",
            )
        ]
    assert {(error.message, error.timed_out) for error in errors} == {
        ("could not fetch input URL after 3 retries", False)
    }
    assert canary.connections == 0


async def test_messages_and_logs_carry_no_credentials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def respond(request: Request) -> None:
        await request.answer(302, Location=f"http://inside.test:{request.headers['host'][-5:]}/?token=s3cr3t")

    async with serve(respond) as source:
        error = await failure(source.url("/?token=s3cr3t"), tmp_path)
        refused = await failure(f"http://user:s3cr3t@{PUBLIC}:{source.port}/", tmp_path)
    shown = "".join(traceback.format_exception(error) + traceback.format_exception(refused)) + caplog.text
    assert "s3cr3t" not in shown
    assert "inside.test" in caplog.text, "the operator is told what was blocked"


def test_check_url_names_the_field() -> None:
    """VC-03."""
    with pytest.raises(ServiceError) as raised:
        fetcher().check_url(f"http://{PRIVATE}/", field="inputUrl")
    assert raised.value.field == "inputUrl"
    fetcher().check_url("https://media.test/a.mp4", field="inputUrl")
