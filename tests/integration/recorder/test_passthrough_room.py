"""Every track of a room as it came, and the timeline that tells a composition what happened when."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.passthrough import reorder
from adapters.passthrough.one_track import OneTrack
from adapters.passthrough.room import Room
from adapters.passthrough.timeline import read_timelines
from adapters.recorder.process import RecorderPool
from server.domain.egress import Encoding
from server.domain.egress_sources import RoomTracksSource, TrackSource
from server.ports.recorder import Active, Broke, Ended, Finish, Measured, RecorderPlan, TrackSeen
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, plan_for, recording, until_recorded
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer


def plan_of(livekit: LiveKitServer, room: str, folder: Path, **more: Any) -> RecorderPlan:
    more = {"source": RoomTracksSource(), "encoding": Encoding(None, None), "container": "", **more}
    return plan_for(livekit, room, folder, **more)


def assert_in_order(numbers: list[int | None]) -> None:
    known = [number for number in numbers if number is not None]
    assert len(known) == len(numbers)
    assert all(second > first for first, second in itertools.pairwise(known))


async def test_three_people_and_a_republish(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """EG-14: each track in files of its own, none takes another's packets, and the timeline knows who and when."""
    first = {}
    for name, codec in (("ann", "h264"), ("bob", "vp8")):
        first[name] = await people.join(Person(name, name=name.title(), codec=codec, fps=15), room)
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:

        def files() -> set[str]:
            return {one.file for one in run.all(TrackSeen)}

        async def all_have_begun() -> None:
            for file in files():
                await until_recorded(
                    tmp_path / file, lambda so_far: len(so_far.lumas) > 5 or len(so_far.sound) > 24_000
                )

        await run.hears(Active)
        # Who speaks is told when it changes.
        cy = Person("cy", name="Cy", codec="vp9", fps=15, humming=True)
        first["cy"] = await people.join(cy, room)
        await eventually(lambda: len(files()) == 6)
        await all_have_begun()
        await eventually(lambda: any("cy" in levels for _, levels in read_timelines(tmp_path).speaking))
        await people.tell("ann", "mute", kind="video")
        await people.tell("bob", "unpublish", kind="video")
        again = await people.tell("bob", "publish")
        await eventually(lambda: len(files()) == 7)
        await all_have_begun()
        await people.tell("ann", "unmute", kind="video")
        await people.tell("cy", "leave")

        def both_are_told() -> bool:
            told = (tmp_path / "timeline-000.json").read_text()
            return len(read_timelines(tmp_path).tracks[first["ann"]["video"]].muted) == 3 and '"left"' in told

        await eventually(both_are_told)
        await run.records(1.5)
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert (ended.reason, ended.media) == ("stopped", True)
    assert run.all(Measured)[-1].dropped == 0
    story = read_timelines(tmp_path)
    assert [(stay.identity, stay.name) for stay in story.people] == [
        ("ann", "Ann"),
        ("bob", "Bob"),
        ("cy", "Cy"),
    ]
    assert story.people[2].end_ns < story.end_ns
    sids = [sid for tracks in first.values() for sid in tracks.values()] + [again["video"]]
    assert Counter(track.sid for track in story.tracks.values()) == Counter(sids)
    muted = story.tracks[first["ann"]["video"]].muted
    assert [is_muted for _, is_muted in muted] == [False, True, False]
    assert any("cy" in levels for _, levels in story.speaking)
    for file in story.files:
        track = story.tracks[file.sid]
        assert (tmp_path / file.file).name.startswith(f"track-000-{file.sid}-0.")
        footage = Footage.read(tmp_path / file.file)
        if track.kind == "video":
            assert_in_order(footage.numbers())
            assert len(footage.lumas) > 5
        else:
            assert len(footage.sound) > 24_000
        assert abs(file.start_ns - story.start_ns) < 30e9


async def test_flashes_of_all_fall_together_on_the_timeline(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Two people in one process flash at the same moments; so do their files, put on the timeline's clock."""
    for name in ("ann", "bob"):
        await people.join(Person(name, codec="vp8", fps=20, audio=False), room)
    timeline = tmp_path / "timeline-000.json"
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        await run.hears(Active)
        await eventually(lambda: timeline.read_text().count('"clock"') >= 2, within=30)
        # A busy publisher leaves out some.
        for file in {one.file for one in run.all(TrackSeen)}:
            await until_recorded(tmp_path / file, lambda so_far: len(so_far.flashes()) >= 6)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    story = read_timelines(tmp_path)
    flashes = [
        [file.start_ns / 1e9 + at for at in Footage.read(tmp_path / file.file).flashes()]
        for file in story.files
    ]
    assert min(len(moments) for moments in flashes) >= 6
    apart = [min(abs(one - other) for other in flashes[1]) for one in flashes[0][1:-1]]
    # How late a busy publisher lets a single one be is not ours.
    assert statistics.median(apart) < 0.08


async def test_a_killed_recorder_leaves_a_timeline_that_can_be_read(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-40: what was written is of use, and the next part joins it."""
    await people.join(Person("ann", codec="h264", fps=15, audio=False), room)
    async with recording(pool, plan_of(livekit, room, tmp_path)) as run:
        seen = await run.hears(TrackSeen)
        await until_recorded(tmp_path / seen.file, lambda so_far: len(so_far.lumas) > 20)
        os.kill(run.recorder.pid, signal.SIGKILL)
    async with recording(pool, plan_of(livekit, room, tmp_path, part=1)) as run:
        await run.hears(TrackSeen)
        await run.records(1.0)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    story = read_timelines(tmp_path)
    assert len(story.files) == 2
    assert len(story.tracks) == 1
    for file in story.files:
        assert_in_order(Footage.read(tmp_path / file.file).numbers())
    assert story.files[1].start_ns > story.files[0].start_ns


Loss = Callable[[float], float]


@dataclass(slots=True)
class BadNetwork:
    """Drops packets on their way in. `rate` is asked with the seconds since the first packet; `lost` counts."""

    rate: Loss
    lost: int = 0
    began: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(5))

    def drops(self) -> bool:
        self.began = self.began or time.monotonic()
        dropped = self.dice.random() < self.rate(time.monotonic() - self.began)
        self.lost += dropped
        return dropped


class FarRoom(Room):
    """A room behind a bad network."""

    def __init__(self, plan: RecorderPlan, recording: OneTrack, network: BadNetwork) -> None:
        super().__init__(plan.url, plan.token, recording)
        self._network = network

    def _media(self, data: bytes) -> None:
        if not self._network.drops():
            super()._media(data)


async def record_through(
    network: BadNetwork, plan: RecorderPlan, seconds: float, eventually: Eventually
) -> Measured:
    """For so long from the first packet on."""
    assert isinstance(plan.source, TrackSource)
    outcome: asyncio.Future[Ended | Broke] = asyncio.get_running_loop().create_future()
    recording = OneTrack(plan, plan.source.track_id, lambda _: None, outcome)
    room = FarRoom(plan, recording, network)
    recording.attach(room)
    following = asyncio.create_task(room.run())
    await eventually(lambda: network.began or following.done())
    await asyncio.wait({following}, timeout=seconds)
    assert recording.finish(time.time_ns())
    # What is on its way again at this moment does not count.
    measured = recording.measured()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return measured


async def test_lost_packets_are_asked_for_again(
    livekit: LiveKitServer, people: People, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """5 % of the packets are lost on the way: no frame of the picture is."""
    sids = await people.join(Person("ann", codec="h264", fps=20, audio=False, busy=True), room)
    plan = plan_of(livekit, room, tmp_path, source=TrackSource(sids["video"]))
    network = BadNetwork(lambda _: 0.05)
    last = await record_through(network, plan, 5, eventually)
    assert network.lost > 2
    assert last.dropped == 0
    footage = Footage.read(tmp_path / "part-000.mp4")
    # The publisher's first pictures are too coarse to read.
    assert_in_order(footage.numbers()[3:])
    assert len(footage.lumas) == last.composed


@pytest.mark.parametrize("asks", [True, False])
async def test_two_seconds_without_packets(
    asks: bool,
    livekit: LiveKitServer,
    people: People,
    room: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    """The server still has them, if it is asked; what is given up ends with the next key frame, which is asked for."""
    if not asks:
        monkeypatch.setattr(reorder, "GIVE_UP_SEC", 0.0)
    sids = await people.join(Person("ann", codec="vp8", fps=20, audio=False), room)
    plan = plan_of(livekit, room, tmp_path, source=TrackSource(sids["video"]))
    network = BadNetwork(lambda seconds: float(1.0 < seconds < 3.0))
    last = await record_through(network, plan, 7, eventually)
    assert network.lost > 10
    assert last.dropped == (0 if asks else network.lost)
    footage = Footage.read(tmp_path / "part-000.webm")
    assert_in_order(footage.numbers())
    gaps = [later - earlier for earlier, later in itertools.pairwise(footage.times)]
    if asks:
        # The publisher itself may stand still for a while.
        assert sum(1.2 < at < 2.8 for at in footage.times) > 5
    else:
        assert max(gaps) > 1.5
    assert footage.times[-1] > 4.5
