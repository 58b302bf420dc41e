"""Streaming to real RTMP servers: what they receive, and what happens when they refuse, stall, die and come back."""

from __future__ import annotations

import functools
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.recorder.outputs import streams as streams_module
from adapters.recorder.program import Program
from server.domain.egress import Destination, Encoding
from server.ports.recorder import StreamReport
from tests.conftest import Eventually
from tests.integration.recorder.material import (
    SMALL,
    VIDEO,
    Feeder,
    LiveFeed,
    Look,
    Reports,
    packets,
    plan_into,
)
from tests.servers.rtmp import RtmpServer, ffmpeg_listener, rtmp_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RtmpServer]:
    with rtmp_server(tmp_path / "nginx") as one:
        yield one


@pytest.fixture
def reports() -> Reports:
    return Reports()


async def all_is_written(eventually: Eventually, *servers: RtmpServer) -> None:
    """Once they have read the ends of all streams, which have left us before."""
    await eventually(lambda: not any(one.publishing() for one in servers))


async def test_one_encode_feeds_a_file_and_several_destinations(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    """EG-03, EG-12: `both` writes the file and streams to every destination; what arrives decodes, in sync, with its tags."""
    wanted = tuple(Destination(key, server.url(key)) for key in ("one", "two", "three"))
    program = Program(plan_into(tmp_path, container="mp4", streams="rtmp", destinations=wanted), reports)
    with LiveFeed(program) as feed:
        await eventually(lambda: all(reports.states(one.id) == ["active"] for one in wanted))
        await eventually(lambda: server.publishing() == {"one", "two", "three"})
        await eventually(lambda: feed.frames > 150)
    await all_is_written(eventually, server)
    assert all(reports.states(one.id) == ["active", "finished"] for one in wanted)
    for one in wanted:
        (received,) = server.recorded(one.id)
        look = Look.at(received)
        first = look.numbers[0]
        assert first is not None
        assert look.numbers == list(range(first, feed.frames))
        assert look.steps() <= {33, 34}
        assert look.offsets()
        assert all(abs(offset) < 0.03 for offset in look.offsets())
        assert look.video["codec"] == "h264"
        assert look.audio == {"codec": "aac", "hz": 44100, "channels": 2}
    assert Look.at(tmp_path / "part-000.mp4").numbers == list(range(feed.frames))


async def test_another_server_takes_it_as_well(
    tmp_path: Path, reports: Reports, eventually: Eventually
) -> None:
    """EG-32: any RTMP endpoint; here FFmpeg's own server."""
    with ffmpeg_listener(tmp_path / "received.flv") as url:
        plan = plan_into(tmp_path, streams="rtmp", destinations=(Destination("a", url),))
        program = Program(plan, reports)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("a") == ["active"])
            start = feed.frames
            await eventually(lambda: feed.frames > start + 120)
    look = Look.at(tmp_path / "received.flv")
    assert len(look.numbers) > 80
    assert look.steps() <= {33, 34}
    assert all(abs(offset) < 0.03 for offset in look.offsets() if abs(offset) < 0.1)


async def test_a_destination_that_was_never_reached_fails_at_once_and_alone(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    """EG-48, livekit-surface 2.4: bad address, application and key each fail at the first try, with their code; the good one goes on."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"rtmp://127.0.0.1:{closed.getsockname()[1]}/live/secretkey"
        wanted = (
            Destination("good", server.url("good")),
            Destination("nobody", nobody),
            Destination("no-app", server.url("secretkey", app="nope")),
            Destination("denied", server.url("secretkey", app="closed")),
            Destination("no-url", "rtmp://"),
        )
        program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports)
        with LiveFeed(program) as feed:
            await eventually(
                lambda: len([one for one in reports.all(StreamReport) if one.state == "failed"]) == 4
            )
            assert program.running_streams == 1
            await eventually(lambda: feed.frames > 60)
    failed = {one.id: one for one in reports.all(StreamReport) if one.state == "failed"}
    assert {identity: one.error_code for identity, one in failed.items()} == {
        "nobody": "RTMP_CONNECTION_REFUSED",
        "no-app": "RTMP_AUTH_FAILED",
        "denied": "RTMP_AUTH_FAILED",
        "no-url": "EGRESS_FAILED",
    }
    assert all(one.error and not one.retries for one in failed.values())
    assert "secretkey" not in repr(reports.said)
    assert reports.states("good") == ["active", "finished"]


async def test_a_server_that_dies_and_returns_gets_the_stream_again(
    tmp_path: Path,
    server: RtmpServer,
    reports: Reports,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """livekit-surface 2.4: after progress a lost destination is tried again with back-off; another one never notices."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "other").mkdir()
    with rtmp_server(tmp_path / "other") as other:
        wanted = (Destination("a", server.url("topsecret")), Destination("b", other.url("b")))
        program = Program(plan_into(tmp_path, container="mp4", streams="rtmp", destinations=wanted), reports)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("a") == ["active"] == reports.states("b"))
            start = feed.frames
            await eventually(lambda: feed.frames > start + 100)
            server.kill()
            await eventually(lambda: reports.states("a").count("reconnecting") >= 2)
            server.start()
            await eventually(lambda: reports.states("a")[-1] == "active")
            start = feed.frames
            await eventually(lambda: feed.frames > start + 60)
        await all_is_written(eventually, server, other)
        assert reports.states("b") == ["active", "finished"]
        assert reports.states("a")[-2:] == ["active", "finished"]
        assert reports.all(StreamReport)[-1].retries >= 0
        assert [one.retries for one in reports.all(StreamReport) if one.id == "a"] == sorted(
            one.retries for one in reports.all(StreamReport) if one.id == "a"
        )
        first, second = server.recorded("topsecret")
        assert len(Look.at(second).numbers) >= 55
        assert len(Look.at(first).numbers) >= 55
        unbroken = Look.at(other.recorded("b")[0])
        assert unbroken.steps() <= {33, 34}
    assert "topsecret" not in repr(reports.said) + caplog.text
    assert Look.at(tmp_path / "part-000.mp4").numbers == list(range(feed.frames))


async def test_a_server_that_hangs_up_in_a_pause_gets_the_stream_again(
    tmp_path: Path,
    server: RtmpServer,
    reports: Reports,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Issue section 4: a pause that is cut out sends nothing, however long; that is no fault of the destination's."""
    monkeypatch.setattr(streams_module, "GIVE_UP_SEC", 3.0)
    wanted = (Destination("a", server.url("a")),)
    program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports)
    resumed = threading.Event()

    def pause() -> None:
        resumed.wait()

    with LiveFeed(program) as feed:
        await eventually(lambda: reports.states("a") == ["active"])
        start = feed.frames
        await eventually(lambda: feed.frames > start + 100)
        feed.call(pause)
        try:
            paused = time.monotonic()
            await eventually(lambda: time.monotonic() > paused + 4.0)
            server.kill()
            await eventually(lambda: "reconnecting" in reports.states("a"))
            server.start()
            await eventually(lambda: reports.states("a")[-1] == "active")
        finally:
            resumed.set()
        start = feed.frames
        await eventually(lambda: feed.frames > start + 150)
    await all_is_written(eventually, server)
    assert reports.states("a")[-1] == "finished"
    assert len(Look.at(server.recorded("a")[-1]).numbers) >= 50


async def test_a_stalled_server_is_left_and_holds_up_nobody(
    tmp_path: Path,
    server: RtmpServer,
    reports: Reports,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """livekit-surface 2.4: a destination that stops reading is told of within the limit; pictures, file and the others go on."""
    monkeypatch.setattr("adapters.recorder.outputs.tcp.STALL_SEC", 3.0)
    monkeypatch.setattr("adapters.recorder.outputs.rtmp.STALL_SEC", 3.0)
    monkeypatch.setattr("adapters.recorder.outputs.rtmp.ANSWER_SEC", 3.0)
    monkeypatch.setattr(streams_module, "GIVE_UP_SEC", 8.0)
    heavy = Encoding(VIDEO.__class__(width=320, height=180, kbps=4000), SMALL.audio)
    (tmp_path / "other").mkdir()
    with rtmp_server(tmp_path / "other") as other:
        wanted = (Destination("a", server.url("a")), Destination("b", other.url("b")))
        plan = plan_into(tmp_path, heavy, container="mp4", streams="rtmp", destinations=wanted)
        program = Program(plan, reports)
        with LiveFeed(program) as feed:
            await eventually(lambda: reports.states("a") == ["active"] == reports.states("b"))
            start = feed.frames
            await eventually(lambda: feed.frames > start + 90)
            with server.paused():
                await eventually(lambda: "failed" in reports.states("a"), within=60)
        (failed,) = [one for one in reports.all(StreamReport) if one.state == "failed"]
        assert failed.error_code == "RTMP_TIMEOUT"
        assert "reconnecting" in reports.states("a")
        assert reports.states("b") == ["active", "finished"]
        assert Look.at(other.recorded("b")[0]).steps() <= {33, 34}
        # Held up, it would be for one of these limits; the machine may stand still for less.
        assert feed.slowest < 2.5
    assert Look.at(tmp_path / "part-000.mp4").numbers == list(range(feed.frames))


async def test_destinations_come_and_go_a_thousand_times(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    """LK-51, LK-54, LK-55: UpdateStream in any number costs the running ones nothing; no thread and no socket stays."""
    stays = Destination("stays", server.url("stays"))
    program = Program(plan_into(tmp_path, streams="rtmp", destinations=(stays,)), reports)
    before = threading.active_count()
    with LiveFeed(program) as feed:
        await eventually(lambda: reports.states("stays") == ["active"])
        for turn in range(1000):
            extra = (Destination(f"x{turn}", server.url(f"x{turn % 7}")),) if turn % 2 == 0 else ()
            feed.call(functools.partial(program.set_destinations, (stays, *extra)))
        last = Destination("last", server.url("last"))
        feed.call(lambda: program.set_destinations((stays, last)))
        await eventually(lambda: reports.states("last") == ["active"], within=30)
        await eventually(lambda: threading.active_count() <= before + 3, within=30)
        start = feed.frames
        await eventually(lambda: feed.frames > start + 60)
    await all_is_written(eventually, server)
    assert reports.states("stays") == ["active", "finished"]
    received = Look.at(server.recorded("stays")[0])
    assert received.steps() <= {33, 34}
    assert len(Look.at(server.recorded("last")[0]).numbers) >= 30
    keys = [pts for pts, _, key in packets(server.recorded("stays")[0], "video") if key]
    assert all(b - a >= 0.99 for a, b in itertools.pairwise(keys))


async def test_a_new_destination_begins_at_a_key_frame_made_for_it(
    tmp_path: Path, server: RtmpServer, reports: Reports, eventually: Eventually
) -> None:
    program = Program(plan_into(tmp_path, container="mp4", streams="rtmp"), reports)
    with LiveFeed(program) as feed:
        await eventually(lambda: feed.frames >= 40)
        asked = feed.frames
        feed.call(lambda: program.set_destinations((Destination("late", server.url("late")),)))
        await eventually(lambda: reports.states("late") == ["active"])
        start = feed.frames
        await eventually(lambda: feed.frames > start + 40)
    await all_is_written(eventually, server)
    keys = [round(pts * 30) for pts, _, key in packets(tmp_path / "part-000.mp4", "video") if key]
    assert keys[0] == 0
    # The next one of its own accord is the 120th.
    assert asked <= keys[1] < 120
    assert Look.at(server.recorded("late")[0]).numbers[0] == keys[1]


async def test_more_destinations_than_one_recorder_serves(
    tmp_path: Path, reports: Reports, eventually: Eventually
) -> None:
    """The first fifty are tried, those beyond are told of, once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{closed.getsockname()[1]}/live/key"
        wanted = tuple(Destination(str(number), url) for number in range(52))
        program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports)
        program.set_destinations(wanted)
        await eventually(lambda: len(reports.all(StreamReport)) == 52)
        program.finish()
    errors = {one.id: one.error for one in reports.all(StreamReport)}
    assert len(errors) == 52
    assert [one for one, error in errors.items() if error == "More than 50 destinations."] == ["50", "51"]


def test_ending_waits_for_no_silent_server(tmp_path: Path, reports: Reports) -> None:
    """A destination that takes the connection and says nothing delays neither the start nor the end for long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/key"
        plan = plan_into(tmp_path, container="mp4", streams="rtmp", destinations=(Destination("s", url),))
        program = Program(plan, reports)
        Feeder(program).feed(30)
        began = time.monotonic()
        program.finish()
        assert time.monotonic() - began < 4
    assert Look.at(tmp_path / "part-000.mp4").numbers == list(range(30))


def test_an_address_that_may_not_be_reached_is_not(
    tmp_path: Path, server: RtmpServer, reports: Reports
) -> None:
    """encoding-and-safety 2.1: what the resolver leaves out is never connected to; the message does not say why."""

    def refuse(host: str, port: int) -> list[str]:
        raise OSError(host)

    wanted = (Destination("a", server.url("key")),)
    program = Program(plan_into(tmp_path, streams="rtmp", destinations=wanted), reports, resolve=refuse)
    Feeder(program).feed(10)
    program.finish()
    (failed,) = reports.all(StreamReport)
    assert (failed.state, failed.error_code) == ("failed", "RTMP_CONNECTION_REFUSED")
    assert failed.error == "The destination's address cannot be reached."
