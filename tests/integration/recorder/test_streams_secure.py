"""Streams over TLS, SRT and websockets, each to a real receiver."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme

from adapters.recorder.outputs.srt import SrtUrl
from adapters.recorder.program import Program
from server.domain.egress import AudioEncoding, Destination, Encoding
from server.ports.recorder import StreamReport
from tests.conftest import Eventually
from tests.integration.recorder.material import FPS, LiveFeed, Look, Reports, plan_into, sound
from tests.marks import HZ
from tests.servers.rtmp import RtmpServer, rtmp_server
from tests.servers.srt import srt_listener
from tests.servers.websocket import Ear, listening_ear

PASSPHRASE = "correct horse battery"


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RtmpServer]:
    with rtmp_server(tmp_path / "nginx") as one:
        yield one


@contextlib.asynccontextmanager
async def tls_before(port: int, authority: trustme.CA) -> AsyncIterator[int]:
    """A TLS port for `localhost` in front of a plain one, as nginx's stream module or stunnel would be."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    front = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()


async def test_rtmps_verifies_whom_it_streams_to(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    """EG-32: a trusted certificate for the name is streamed to; a wrong name or plain RTMP behind the port is not."""
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with tls_before(server.port, authority) as port:
        wanted = (
            Destination("good", f"rtmps://localhost:{port}/live/key"),
            Destination("wrong-name", f"rtmps://127.0.0.1:{port}/live/key"),
            Destination("no-tls", f"rtmps://localhost:{server.port}/live/key"),
        )
        program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports, tls=trusted)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("good") == ["active"])
            await eventually(lambda: len(reports.all(StreamReport)) == 3)
            start = feed.frames
            await eventually(lambda: feed.frames > start + 100)
            await asyncio.to_thread(feed.end)
        # The server may still be writing.
        await eventually(lambda: not server.publishing())
    (received,) = server.recorded("key")
    look = Look.at(received)
    assert len(look.numbers) > 60
    assert look.steps() <= {33, 34}
    errors = {one.id: one.error for one in reports.all(StreamReport) if one.state == "failed"}
    assert errors["wrong-name"] == "The destination's certificate is not valid."
    assert errors.keys() == {"wrong-name", "no-tls"}


async def test_a_certificate_of_nobody_known_is_refused(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    """EG-32: the usual authorities decide, with no way around."""
    async with tls_before(server.port, trustme.CA()) as port:
        wanted = (Destination("a", f"rtmps://localhost:{port}/live/key"),)
        program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports)
        await eventually(lambda: reports.states("a") == ["failed"])
        await asyncio.to_thread(program.finish)
    (failed,) = reports.all(StreamReport)
    assert failed.error == "The destination's certificate is not valid."
    assert not server.recorded("key")


async def test_srt_streams_with_a_passphrase(
    tmp_path: Path, reports: Reports, eventually: Eventually
) -> None:
    """livekit-surface 4.2: SRT through FFmpeg; what arrives decodes in sync, and the passphrase is not left on a command line."""
    with srt_listener(tmp_path, passphrase=PASSPHRASE) as listener:
        right = Destination("right", listener.url(f"passphrase={PASSPHRASE}&latency=200".replace(" ", "%20")))
        program = Program(plan_into(tmp_path, streams="srt", destinations=(right,)), reports)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("right") == ["active"])
            assert not [line for line in command_lines() if PASSPHRASE in line and "listener" not in line]
            start = feed.frames
            await eventually(lambda: feed.frames > start + 120)
        listener.wait(30)
        look = Look.at(listener.received[0])
    assert reports.states("right") == ["active", "finished"]
    assert None not in look.numbers
    assert look.numbers == list(range(look.numbers[0] or 0, feed.frames))
    assert all(abs(offset) < 0.03 for offset in look.offsets() if abs(offset) < 0.1)
    assert look.audio["codec"] == "aac"


async def test_srt_refused_and_lost(tmp_path: Path, reports: Reports, eventually: Eventually) -> None:
    """livekit-surface 2.4: a wrong passphrase fails at once; a listener that dies and returns is streamed to again."""
    (tmp_path / "a").mkdir()
    with srt_listener(tmp_path / "a", passphrase=PASSPHRASE) as strict, srt_listener(tmp_path) as listener:
        wanted = (
            Destination("wrong", strict.url("passphrase=somethingelse")),
            Destination("lost", listener.url()),
            Destination("listener", f"srt://127.0.0.1:{listener.port}?mode=listener"),
        )
        program = Program(plan_into(tmp_path, streams="srt", destinations=wanted), reports)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("lost") == ["active"])
            await eventually(lambda: reports.states("wrong") == ["failed"])
            assert reports.states("listener") == ["failed"]
            start = feed.frames
            await eventually(lambda: feed.frames > start + 100)
            listener.kill()
            await eventually(lambda: "reconnecting" in reports.states("lost"), within=30)
            listener.start()
            await eventually(lambda: reports.states("lost")[-1] == "active", within=30)
            start = feed.frames
            await eventually(lambda: feed.frames > start + 75)
        listener.wait(30)
        assert len(Look.at(listener.received[-1]).numbers) > 20
    codes = {one.id: one.error_code for one in reports.all(StreamReport) if one.state == "failed"}
    assert codes == {"wrong": "RTMP_AUTH_FAILED", "listener": "EGRESS_FAILED"}
    assert "somethingelse" not in repr(reports.said)


def test_srt_urls_keep_only_what_a_caller_needs() -> None:
    """Latencies are ms in URLs and µs for FFmpeg; a URL can neither listen nor set what was not foreseen."""
    url = SrtUrl.parse("srt://example.com:9000?streamid=a%2Fb&latency=250&pkt_size=1&mode=caller")
    assert url.arguments("192.0.2.1")[-1] == "srt://192.0.2.1:9000"
    assert url.options == {"streamid": "a/b", "latency": "250000"}
    for bad in ("srt://example.com:9000?mode=rendezvous", "srt://example.com", "rtmp://example.com:1/a/b"):
        with pytest.raises(ValueError, match=r"SRT|caller"):
            SrtUrl.parse(bad)


def command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    async with listening_ear() as listener:
        yield listener


PCM = Encoding(None, AudioEncoding("pcm", hz=HZ))


async def test_a_websocket_gets_the_sound_as_it_is(
    tmp_path: Path, ear: Ear, reports: Reports, eventually: Eventually
) -> None:
    """LK-35, livekit-surface 4.3: S16LE at 48 kHz, stereo, as binary messages; muting as text; the content type names the format."""
    wanted = (
        Destination("ok", f"{ear.url}?token=s3cret"),
        Destination("refused", ear.url.replace("/sound", "/other")),
    )
    program = Program(plan_into(tmp_path, PCM, streams="websocket", destinations=wanted), reports)
    with LiveFeed(program, video=False) as feed:
        await eventually(lambda: len(ear.samples) > HZ * 4)
        feed.call(lambda: program.set_muted(muted=True))
        await eventually(lambda: ear.texts)
        feed.call(lambda: program.set_muted(muted=False))
        await eventually(lambda: len(ear.texts) == 2)
        await asyncio.to_thread(feed.end)
    await eventually(lambda: ear.close_code is not None)
    assert ear.content_type == "audio/x-raw"
    assert [json.loads(text) for text in ear.texts] == [{"muted": True}, {"muted": False}]
    samples = np.frombuffer(bytes(ear.samples), "<i2").reshape(-1, 2)
    everything = sound(0, feed.frames * HZ // FPS)
    assert (samples == everything[len(everything) - len(samples) :]).all()
    assert ear.close_code == 1000
    assert reports.states("ok") == ["active", "finished"]
    (refused,) = [one for one in reports.all(StreamReport) if one.id == "refused"]
    assert (refused.state, refused.error_code) == ("failed", "RTMP_AUTH_FAILED")
    assert "s3cret" not in repr(reports.said)


async def test_a_websocket_that_closes_is_not_tried_again(
    tmp_path: Path, ear: Ear, reports: Reports, eventually: Eventually
) -> None:
    """livekit-surface 2.4: any write error ends it."""
    wanted = (Destination("a", ear.url),)
    program = Program(plan_into(tmp_path, PCM, streams="websocket", destinations=wanted), reports)
    with LiveFeed(program, video=False):
        await eventually(lambda: len(ear.samples) > HZ * 12)
        assert ear.socket is not None
        await ear.socket.close()
        await eventually(lambda: reports.states("a") == ["active", "failed"])
        assert program.running_streams == 0
