"""One track as it came: every frame that was sent is in the file, whatever happens to the track meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import statistics
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.recorder.process import RecorderPool
from server.domain.egress import Destination, Encoding
from server.domain.egress_sources import TrackSource
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Finish,
    Joined,
    Measured,
    NewOrders,
    RecorderPlan,
    StreamReport,
    TrackSeen,
)
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, plan_for, recording, until_recorded
from tests.marks import beeps
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer
from tests.servers.websocket import Ear, listening_ear

NOTHING = Encoding(None, None)


def plan_of(livekit: LiveKitServer, room: str, folder: Path, track: str, **more: object) -> RecorderPlan:
    return plan_for(livekit, room, folder, TrackSource(track), encoding=NOTHING, container="", **more)


def assert_in_order(numbers: list[int | None]) -> None:
    """Each frame once. A busy publisher leaves some numbers out itself; what is lost on the way is counted elsewhere."""
    known = [number for number in numbers if number is not None]
    assert len(known) == len(numbers)
    steps = [second - first for first, second in itertools.pairwise(known)]
    # No further than some seconds in which the publisher stood still.
    assert all(1 <= step < 100 for step in steps)
    assert sum(step == 1 for step in steps) > 0.8 * len(steps)


def assert_in_time(footage: Footage, fps: int = 20) -> None:
    """Each frame lies where its number belongs, but for single ones that a busy publisher shows late."""
    known = [number for number in footage.numbers() if number is not None]
    assert len(known) == len(footage.lumas)
    late = [at - number / fps for at, number in zip(footage.times, known, strict=True)]
    usual = statistics.median(late)
    assert sum(abs(one - usual) < 0.25 for one in late) > 0.9 * len(late)


@pytest.mark.parametrize(
    ("codec", "container"), [("h264", "mp4"), ("vp8", "webm"), ("vp9", "webm"), ("av1", "mp4")]
)
async def test_a_picture_is_kept_as_it_came(
    codec: str,
    container: str,
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
) -> None:
    """EG-13, LK-22: no frame is lost, each codec in the container that LiveKit gives it."""
    sids = await people.join(Person("ann", codec=codec, fps=20, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.recorded(2.5)
        # A publisher that stood still meanwhile has drawn less in that time.
        await run.goes_on(30)
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    joined = run.all(Joined)[0]
    assert (joined.publisher_identity, joined.track_id) == ("ann", sids["video"])
    assert (joined.track_kind, joined.track_source, joined.container) == ("video", "camera", container)
    assert (ended.reason, ended.media) == ("stopped", True)
    footage = Footage.read(tmp_path / f"part-000.{container}")
    assert_in_order(footage.numbers())
    last = run.all(Measured)[-1]
    assert (last.composed, last.dropped) == (len(footage.lumas), 0)
    assert last.composed > 30
    assert run.all(TrackSeen)[-1].end_ms == last.duration_ms
    facts = json.loads((tmp_path / "part-000.json").read_bytes())
    assert facts["startedAt"] == run.all(Active)[0].started_at


async def test_a_sound_is_kept_as_it_came(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-13: silences are not sent, yet the beeps stand a second apart."""
    sids = await people.join(Person("ann", video=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["audio"])) as run:
        await until_recorded(tmp_path / "part-000.ogg", lambda so_far: len(so_far.beeps()) >= 5)
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert run.all(Joined)[0].container == "ogg"
    footage = Footage.read(tmp_path / "part-000.ogg")
    heard = footage.beeps()
    assert len(heard) >= 5
    # A busy publisher lets single ones come late or not at all; if silence went missing, there would be few, and close.
    apart = [later - earlier for earlier, later in itertools.pairwise(heard)]
    assert abs(statistics.median(apart) - 1.0) < 0.2
    seconds = (ended.ended_at - run.all(Active)[0].started_at) / 1e9
    # Time counts from the arrival of the first packet, which may be late; those that follow are not.
    assert -0.03 < len(footage.sound) / footage.hz - seconds < 0.2


async def test_picture_and_sound_share_a_clock(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Two egresses of one participant: flash and beep fall together by the clock of the sender reports."""
    sids = await people.join(Person("ann", codec="h264", fps=20), room)
    folders = {kind: tmp_path / kind for kind in ("video", "audio")}
    for folder in folders.values():
        folder.mkdir()
    async with (
        recording(pool, plan_of(livekit, room, folders["video"], sids["video"])) as picture,
        recording(pool, plan_of(livekit, room, folders["audio"], sids["audio"])) as sound,
    ):

        def common() -> bool:
            facts = [json.loads((folder / "part-000.json").read_bytes()) for folder in folders.values()]
            return all("commonStartedAt" in fact for fact in facts)

        for run in (picture, sound):
            await run.hears(Active)
        # The server tells it in its sender reports, the first of which takes seconds.
        await eventually(common, within=30)
        await picture.records(3.5)
        for run in (picture, sound):
            await run.recorder.send(Finish())
            await run.hears(Ended)
    starts = {
        kind: json.loads((folder / "part-000.json").read_bytes())["commonStartedAt"] / 1e9
        for kind, folder in folders.items()
    }
    flashes = [starts["video"] + at for at in Footage.read(folders["video"] / "part-000.mp4").flashes()]
    heard = [starts["audio"] + at for at in Footage.read(folders["audio"] / "part-000.ogg").beeps()]
    offsets = [min((beep - flash for beep in heard), key=abs) for flash in flashes[2:-1]]
    assert len(offsets) >= 2
    # How far apart a busy publisher itself lets single ones be is not ours.
    assert abs(statistics.median(offsets)) < 0.2


async def test_a_muted_picture_goes_on_where_it_is_in_time(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    sids = await people.join(Person("ann", codec="h264", fps=20, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.recorded(1.5)
        await people.tell("ann", "mute", kind="video")
        await run.records(1.5)
        await people.tell("ann", "unmute", kind="video")
        await run.goes_on(30)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert {luma.shape for luma in footage.lumas} == {(180, 320)}, "the server's farewell picture is no frame"
    assert_in_time(footage)
    assert max(later - earlier for earlier, later in itertools.pairwise(footage.times)) > 1.0


async def test_a_track_ends_with_its_publication(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-13: unpublished, its recording is complete."""
    sids = await people.join(Person("ann", codec="h264", fps=20), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.records(1.5)
        await people.tell("ann", "unpublish", kind="video")
        ended = await run.hears(Ended)
    assert (ended.reason, ended.media) == ("source_closed", True)
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert {luma.shape for luma in footage.lumas} == {(180, 320)}
    assert_in_order(footage.numbers())


async def test_a_picture_may_change_its_size(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    sids = await people.join(Person("ann", codec="vp8", fps=20, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.records(1.5)
        await people.tell("ann", "change", width=240, height=320)
        await until_recorded(
            tmp_path / "part-000.webm", lambda so_far: len({luma.shape for luma in so_far.lumas}) == 2
        )
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.webm")
    assert {luma.shape for luma in footage.lumas} == {(180, 320), (320, 240)}
    numbers = footage.numbers()
    assert numbers.count(None) == 0


async def test_a_pause_is_cut_out(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    sids = await people.join(Person("ann", codec="h264", fps=20, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.recorded(1.0)
        await run.recorder.send(NewOrders(paused="cut"))
        await run.halts()
        await run.recorder.send(NewOrders())
        await run.goes_on(20)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.mp4")
    numbers = [number for number in footage.numbers() if number is not None]
    assert len(numbers) == len(footage.lumas)
    # Where a publisher stands still, time goes on with the numbers.
    unseen = [
        (number - before) / 20 - (later - earlier)
        for (before, number), (earlier, later) in zip(
            itertools.pairwise(numbers), itertools.pairwise(footage.times), strict=True
        )
    ]
    assert max(unseen) > 1.4, "two seconds of numbers are missing, and time knows nothing of it"
    assert sum(unseen) > 1.4


async def test_a_track_that_never_comes_is_not_found(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LiveKit's words after 30 s (livekit-surface section 5.4)."""
    async with recording(pool, plan_of(livekit, room, tmp_path, "TR_nowhere")) as run:
        broke = await run.hears(Broke, within=40)
    assert (broke.message, broke.http_code, broke.retry) == ("track TR_nowhere not found", 404, False)


async def test_a_picture_does_not_go_to_a_websocket(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LiveKit's words (livekit-surface section 4.3)."""
    sids = await people.join(Person("ann", audio=False), room)
    plan = plan_of(livekit, room, tmp_path, sids["video"], streams="websocket")
    async with recording(pool, plan) as run:
        broke = await run.hears(Broke)
    assert broke.message == "format websocket incompatible with codec video/vp8"
    assert broke.http_code == 400


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    async with listening_ear() as listener:
        yield listener


def _mono(ear: Ear) -> NDArray[np.float64]:
    """What it has heard, in -1…1."""
    whole = len(ear.samples) // 4 * 4
    mono: NDArray[np.float64] = (
        np.frombuffer(bytes(ear.samples[:whole]), "<i2").reshape(-1, 2).mean(axis=1) / 32768
    )
    return mono


async def test_a_sound_goes_to_a_websocket(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    ear: Ear,
    eventually: Eventually,
) -> None:
    """LK-53: plain samples in step with the clock, silence where nothing is sent, mutes as text."""
    sids = await people.join(Person("ann", video=False), room)
    plan = plan_of(
        livekit,
        room,
        tmp_path,
        sids["audio"],
        streams="websocket",
        destinations=(Destination("one", ear.url),),
        allow_private_urls=True,
    )
    async with recording(pool, plan) as run:
        await eventually(lambda: len(beeps(_mono(ear))) >= 4, within=30, every=0.5)
        await people.tell("ann", "mute", kind="audio")
        await eventually(lambda: ear.texts == ['{"muted":true}'])
        await people.tell("ann", "unmute", kind="audio")
        await eventually(lambda: len(ear.texts) == 2)
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
        await eventually(lambda: ear.close_code is not None)
    assert ear.content_type == "audio/x-raw"
    assert ear.texts == ['{"muted":true}', '{"muted":false}']
    assert (ended.reason, ended.media) == ("stopped", True)
    assert run.all(Joined)[0].container == ""
    samples = np.frombuffer(bytes(ear.samples), "<i2").reshape(-1, 2)
    seconds = (ended.ended_at - run.all(Active)[0].started_at) / 1e9
    assert abs(len(samples) / 48_000 - seconds) < 0.5
    heard = beeps(_mono(ear))
    assert len(heard) >= 4
    # As above: without their silence they would be few, and close.
    assert abs(statistics.median(later - earlier for earlier, later in itertools.pairwise(heard)) - 1.0) < 0.2
    assert [one.state for one in run.all(StreamReport)] == ["active", "finished"]


async def test_a_websocket_on_a_private_address_is_not_spoken_to(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    ear: Ear,
) -> None:
    """Design section 13: the guard looks at every connection to an address that came with an API key."""
    sids = await people.join(Person("ann", video=False), room)
    wanted = (Destination("one", ear.url),)
    plan = plan_of(livekit, room, tmp_path, sids["audio"], streams="websocket", destinations=wanted)
    async with recording(pool, plan) as run:
        ended = await run.hears(Ended)
    assert ended.reason == "streams_failed"
    assert run.all(StreamReport)[-1].error == "The destination's address cannot be reached."
    assert not ear.content_type


async def test_a_websocket_that_refuses_ends_the_egress(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    sids = await people.join(Person("ann", video=False), room)
    nobody = Destination("one", "ws://127.0.0.1:9/")
    plan = plan_of(
        livekit,
        room,
        tmp_path,
        sids["audio"],
        streams="websocket",
        destinations=(nobody,),
        allow_private_urls=True,
    )
    async with recording(pool, plan) as run:
        ended = await run.hears(Ended)
    assert ended.reason == "streams_failed"


async def test_a_disk_that_refuses_ends_the_recording(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Issue section 5: a recording that is not written must not seem to go on."""
    sids = await people.join(Person("ann", audio=False, kbps=3000, busy=True), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.hears(Active)
        resource.prlimit(run.recorder.pid, resource.RLIMIT_FSIZE, (150_000, 150_000))
        broke = await run.hears(Broke)
    assert broke.code == "STORAGE_UPLOAD_FAILED"
    assert not broke.retry


@pytest.mark.parametrize(("codec", "container"), [("h264", "mp4"), ("vp8", "webm")])
async def test_a_killed_recorder_leaves_a_file_that_lacks_little(
    codec: str,
    container: str,
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
) -> None:
    """EG-40: at most four seconds are missing after `kill -9`."""
    sids = await people.join(Person("ann", codec=codec, fps=20, audio=False, busy=True), room)
    async with recording(pool, plan_of(livekit, room, tmp_path, sids["video"])) as run:
        await run.recorded(5.0)
        os.kill(run.recorder.pid, signal.SIGKILL)
    footage = Footage.read(tmp_path / f"part-000.{container}")
    assert_in_order(footage.numbers())
    assert footage.times[-1] > 2.0


class SignalDoor:
    """Stands before LiveKit's signalling and can slam: every connection through it breaks."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.passed = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.slam()

    def slam(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.passed += 1
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, back]
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_broken_connection_leaves_a_gap_in_one_file(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """EG-41: the recorder joins again, the track goes on in the same file, and the gap is told."""
    sids = await people.join(Person("ann", codec="h264", fps=20, audio=False), room)
    door = SignalDoor(livekit.address.url)
    async with door as url:
        plan = replace(plan_of(livekit, room, tmp_path, sids["video"]), url=url)
        async with recording(pool, plan) as run:
            await run.recorded(1.5)
            door.slam()
            await eventually(lambda: run.all(Measured)[-1].gaps, within=30)
            await run.recorded(4.0)
            await run.goes_on(20)
            await run.recorder.send(Finish())
            ended = await run.hears(Ended)
    assert door.passed == 2
    assert ended.reason == "stopped"
    last = run.all(Measured)[-1]
    assert [gap["reason"] for gap in last.gaps] == ["CONNECTION_LOST"]
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert_in_time(footage)
    assert footage.times[-1] > 3.0


async def test_an_egress_of_the_same_id_takes_over(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Who is thrown out because another recorder of this egress joined does not come back."""
    sids = await people.join(Person("ann", codec="vp8", fps=20, audio=False), room)
    plan = plan_of(livekit, room, tmp_path, sids["video"])
    async with recording(pool, plan) as first:
        await first.records(0.5)
        async with recording(pool, replace(plan, part=1)) as second:
            ended = await first.hears(Ended)
            await second.recorded(0.0)
            await second.goes_on(10)
            await second.recorder.send(Finish())
            assert (await second.hears(Ended)).reason == "stopped"
    assert ended.reason == "evicted"
    assert len(Footage.read(tmp_path / "part-001.webm").lumas) > 5
