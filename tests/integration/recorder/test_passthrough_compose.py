"""A room recorded track by track becomes, afterwards, what a live composition would have been."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.passthrough.timeline import read_timelines
from adapters.recorder.process import RecorderPool
from adapters.recorder.recompose import NothingRecorded, compose_tracks
from server.domain.egress import AudioEncoding, Encoding, VideoEncoding
from server.domain.egress_sources import RoomTracksSource
from server.domain.layout import Rect, StageTrack, arrange
from server.ports.recorder import Active, Ended, Finish, NewOrders, RecorderPlan, TrackSeen
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, plan_for, recording, until_recorded
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer

# Two tiles that show a picture of 16:9 nearly whole.
WIDE = Encoding(VideoEncoding(width=640, height=180, kbps=1500), AudioEncoding())
QUICK = Encoding(VideoEncoding(width=320, height=180, fps=20, kbps=500), AudioEncoding())


def plan_of(livekit: LiveKitServer, room: str, folder: Path, **more: Any) -> RecorderPlan:
    return plan_for(
        livekit, room, folder, RoomTracksSource(), encoding=Encoding(None, None), container="", **more
    )


def halves(width: int, height: int) -> list[Rect]:
    tracks = [StageTrack(name, name, name, "camera", 320, 180) for name in ("ann", "bob")]
    return [tile.rect for tile in arrange("grid", tracks, None, width, height)]


async def test_two_people_side_by_side(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Every frame in its tile, sound and picture together, as long as the room was recorded."""
    for name, codec in (("ann", "h264"), ("bob", "vp9")):
        await people.join(Person(name, codec=codec, fps=15, hz=1000 if name == "ann" else 1400), room)
    timeline = tmp_path / "timeline-000.json"
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        await run.hears(Active)
        await eventually(lambda: timeline.read_text().count('"clock"') >= 4, within=30)
        await run.records(2.0)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    target = tmp_path / "out" / "room.mp4"
    target.parent.mkdir()
    done: list[float] = []
    finished = await compose_tracks(tmp_path, target, "grid", WIDE, "mp4", done.append)
    assert done == sorted(done)
    assert done[-1] == 1.0
    footage = Footage.read(target)
    story = read_timelines(tmp_path)
    seconds = (story.end_ns - min(file.start_ns for file in story.files)) / 1e9
    assert abs(finished.duration_ms / 1000 - seconds) < 0.1
    assert abs(len(footage.lumas) - seconds * 30) <= 2
    for name, rect in zip(("ann", "bob"), halves(640, 180), strict=True):
        numbers = [number for number in footage.numbers(rect)[30:] if number is not None]
        assert len(numbers) > 0.95 * len(footage.lumas[30:])
        assert numbers == sorted(numbers)
        # What came of them: a busy publisher leaves some out.
        (came,) = [
            Footage.read(tmp_path / file.file).numbers()
            for file in story.files
            if (story.tracks[file.sid].identity, story.tracks[file.sid].kind) == (name, "video")
        ]
        wanted = {number for number in came if number is not None and number >= numbers[0]}
        assert len(wanted & set(numbers)) > 0.8 * len(wanted)
        # The publisher's own offset is in it.
        offsets = footage.offsets(rect)[1:-1]
        assert len(offsets) >= 2
        assert statistics.median(map(abs, offsets)) < 0.12
    assert [path.name for path in target.parent.iterdir()] == ["room.mp4"]


async def test_a_killed_and_a_paused_recording_are_cut_together(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Two parts, a pause in the second: all of it is one composition without holes."""
    await people.join(Person("ann", codec="h264", fps=15), room)
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        await run.records(2.5)
        os.kill(run.recorder.pid, signal.SIGKILL)
    async with recording(pool, plan_of(livekit, room, tmp_path, part=1)) as run:
        await run.records(1.0)
        await run.recorder.send(NewOrders(paused="cut"))
        await run.records(1.5)
        await run.recorder.send(NewOrders())
        await run.records(1.0)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    story = read_timelines(tmp_path)
    assert len(story.pauses) == 2
    target = tmp_path / "room.webm"
    encoding = Encoding(VideoEncoding("vp9", 320, 180, 15, 400), AudioEncoding("opus", 96, 48_000))
    finished = await compose_tracks(tmp_path, target, "single-speaker", encoding, "webm", lambda _: None)
    paused = sum(end - start for start, end in story.pauses)
    whole = story.end_ns - min(file.start_ns for file in story.files)
    assert abs(finished.duration_ms - (whole - paused) / 1e6) < 150
    numbers = [number for number in Footage.read(target).numbers() if number is not None]
    assert numbers == sorted(numbers)
    assert max(b - a for a, b in itertools.pairwise(numbers)) > 15


async def test_sound_alone(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    await people.join(Person("ann", video=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        sound = (await run.hears(TrackSeen)).file
        await until_recorded(tmp_path / sound, lambda so_far: len(so_far.beeps()) >= 3)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    target = tmp_path / "room.ogg"
    encoding = Encoding(None, AudioEncoding("opus", 64, 48_000))
    await compose_tracks(tmp_path, target, "grid", encoding, "ogg", lambda _: None)
    assert len(Footage.read(target).beeps()) >= 2


async def test_a_stopped_composition_leaves_nothing(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    await people.join(Person("ann", codec="vp8", fps=15, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        await run.records(2.0)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    with (tmp_path / "timeline-000.json").open("a") as timeline:
        # A minute, so that it is not made before it can be stopped.
        timeline.write(
            json.dumps({"at": time.time_ns() + 60_000_000_000, "event": "joined", "room": "RM"}) + "\n"
        )
    before = {path.name for path in tmp_path.iterdir()}
    begun = asyncio.Event()
    composing = asyncio.create_task(
        compose_tracks(tmp_path, tmp_path / "room.mp4", "grid", QUICK, "mp4", lambda _: begun.set())
    )
    await begun.wait()
    composing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await composing
    assert {path.name for path in tmp_path.iterdir()} == before


async def test_a_folder_without_media_is_refused(tmp_path: Path) -> None:
    (tmp_path / "timeline-000.json").write_text('{"at":1,"event":"joined","room":"RM"}\n')
    with pytest.raises(NothingRecorded):
        await compose_tracks(tmp_path, tmp_path / "room.mp4", "grid", QUICK, "mp4", lambda _: None)
