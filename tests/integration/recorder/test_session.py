"""A recorder in a real room: what it records is what was shown and said there."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from livekit.api import DeleteRoomRequest, LiveKitAPI

from adapters.recorder.process import RecorderPool
from server.domain.egress import Destination
from server.domain.egress_sources import RoomSource
from server.domain.layout import Rect, StageTrack, arrange
from server.ports.recorder import Active, Ended, Finish, Joined, Measured, NewOrders, StreamReport, TrackSeen
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, drawn_now, plan_for, present, recording, until_recorded
from tests.marks import read_number
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer

WIDTH, HEIGHT = 640, 360


def places(layout: str, *identities: str) -> dict[str, Rect]:
    """Where cameras of these, in the order of joining, stand in the tests' pictures."""
    tracks = [StageTrack(who, who, who, "camera", 320, 180) for who in identities]
    return {tile.track_id: tile.rect for tile in arrange(layout, tracks, None, WIDTH, HEIGHT)}


async def test_a_room_becomes_a_file(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-01, RC-01: from the first picture to the order to finish; times and durations are true to a frame."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path, wait_for_others=15.0)) as run:
        await until_recorded(
            tmp_path / "part-000.mp4", lambda so_far: len(set(so_far.numbers())) > 30 and bool(so_far.beeps())
        )
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert ended.media
    assert ended.reason == "stopped"
    assert run.all(Joined)[0].room_id.startswith("RM_")
    assert {(one.media, one.identity) for one in run.all(TrackSeen)} == {("video", "ann"), ("audio", "ann")}
    footage = Footage.read(tmp_path / "part-000.mp4")
    numbers = footage.numbers()
    assert numbers.count(None) == 0
    assert len(set(numbers)) > 30
    assert footage.beeps()
    last, active = run.all(Measured)[-1], run.all(Active)[0]
    assert abs(last.duration_ms - len(footage.lumas) * 1000 / 30) <= 40
    assert abs(ended.ended_at - active.started_at - last.duration_ms * 1_000_000) < 40_000_000
    assert json.loads((tmp_path / "part-000.json").read_text()) == {"startedAt": active.started_at}
    intervals = {
        round((after - now) * 30, 3) for now, after in zip(footage.times, footage.times[1:], strict=False)
    }
    assert intervals == {1.0}


async def test_everybody_is_there_from_the_first_frame(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-14: the first frame waits for the pictures of all who are there."""
    for who in ("ann", "bob", "eve"):
        await people.join(Person(who), room)
    async with recording(pool, plan_for(livekit, room, tmp_path, wait_for_others=15.0)) as run:
        await run.records(0.5)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.mp4")
    for rect in places("grid", "ann", "bob", "eve").values():
        assert footage.numbers(rect)[0] is not None


async def test_nobody_is_black_when_they_are_shown_again(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-18: a track without a tile is not sent, and a camera may be off; the SDK fills both with black."""
    await people.join(Person("ann", humming=True), room)
    await people.join(Person("bob", audio=False, codec="h264"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(0.5)
        for layout in ("single-speaker", "grid", "single-speaker", "grid"):
            await run.recorder.send(NewOrders(layout=layout))
            await asyncio.sleep(1.2)
        await people.tell("bob", "mute", kind="video")
        await asyncio.sleep(1.0)
        await people.tell("bob", "unmute", kind="video")
        again = drawn_now(people)
        await until_recorded(
            tmp_path / "part-000.mp4",
            lambda so_far: so_far.shows(again, places("grid", "ann", "bob")["bob"]),
        )
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.mp4")
    # Everything that is drawn keeps to the limited range, which begins at 16.
    assert min(picture.mean() for picture in footage.in_rect(places("grid", "ann", "bob")["bob"])) > 10
    assert footage.numbers(places("grid", "ann", "bob")["bob"])[-1] is not None


async def test_a_layout_is_changed_while_it_runs(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-18: UpdateLayout."""
    for who in ("ann", "bob", "eve"):
        await people.join(Person(who), room)
    grid, whole = places("grid", "ann", "bob", "eve")["ann"], places("single-speaker", "ann")["ann"]
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(0, grid))
        await run.recorder.send(NewOrders("single-speaker"))
        ordered = drawn_now(people)
        await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(ordered, whole))
        await run.recorder.send(Finish())
        await run.hears(Ended)
    footage = Footage.read(tmp_path / "part-000.mp4")
    in_grid = [
        (at, number) for at, number in zip(footage.times, footage.numbers(grid), strict=True) if number
    ]
    alone = footage.numbers(whole)[-3]
    assert alone is not None
    # Read in the wrong place, a number is any number.
    shown_sec, counted_sec = footage.times[-3] - in_grid[0][0], (alone - in_grid[0][1]) / 30
    assert counted_sec > 0.6
    assert abs(counted_sec - shown_sec) < 3


async def test_an_empty_room_records_its_stage(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Design 13: an empty room is recorded; who comes later is on it, with only a microphone as well."""
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(0.5)
        await people.join(Person("ann", video=False, humming=True), room)
        await people.join(Person("eve", video=False), room)
        await people.join(Person("bob"), room)
        came = drawn_now(people)

        def all_are_on_it(so_far: Footage) -> bool:
            loud = abs(so_far.sound[-so_far.hz // 2 :]) > 0.2
            return so_far.shows(came, places("grid", "ann", "eve", "bob")["bob"]) and bool(loud.any())

        await until_recorded(tmp_path / "part-000.mp4", all_are_on_it)
        await run.recorder.send(Finish())
        assert (await run.hears(Ended)).media
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert footage.numbers(places("grid", "ann", "eve", "bob")["bob"])[-3] is not None


async def test_stopped_at_once_nothing_is_recorded(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Design 13: stopped before the first frame."""
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert (ended.reason, ended.media) == ("stopped", False)


async def test_it_ends_with_the_room(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-30: `source_closed`."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(0.5)
        address = livekit.address
        async with LiveKitAPI(address.url, address.api_key, address.api_secret) as api:
            await api.room.delete_room(DeleteRoomRequest(room=room))
        ended = await run.hears(Ended)
    assert (ended.reason, ended.media) == ("source_closed", True)


async def test_it_ends_at_its_limit(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-31: `limit`."""
    async with recording(pool, plan_for(livekit, room, tmp_path, max_sec=1.0)) as run:
        assert (await run.hears(Ended)).reason == "limit"
    assert 1000 <= run.all(Measured)[-1].duration_ms < 3000


async def test_another_owner_takes_over(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK trap 32: a second recorder of the same identity evicts the first, which says so and no more."""
    await people.join(Person("ann"), room)
    plan = plan_for(livekit, room, tmp_path)
    async with recording(pool, plan) as first:
        await first.records(0.5)
        other = tmp_path / "other"
        other.mkdir()
        plan = plan_for(livekit, room, other, egress_id=plan.egress_id, token=plan.token)
        async with recording(pool, plan) as second:
            assert (await first.hears(Ended)).reason == "evicted"
            await second.records(0.5)
            await second.recorder.send(Finish())
            assert (await second.hears(Ended)).reason == "stopped"


async def test_a_pause_is_cut_out(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-40: the file goes on where it was, the gap is told."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path, wait_for_others=15.0)) as run:
        await run.records(1.0)
        await run.recorder.send(NewOrders(paused="cut"))
        await run.halts()
        await run.recorder.send(NewOrders())
        resumed = drawn_now(people)
        await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(resumed))
        await run.recorder.send(Finish())
        await run.hears(Ended)
    (gap,) = run.all(Measured)[-1].gaps
    assert gap["reason"] == "PAUSED"
    assert int(gap["durationMs"]) >= 1500
    footage = Footage.read(tmp_path / "part-000.mp4")
    numbers = [number for number in footage.numbers() if number is not None]
    jump = max(after - before for before, after in itertools.pairwise(numbers))
    assert jump > 40
    assert len(numbers) == len(footage.lumas)


async def test_a_pause_is_filled_with_a_card(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-40: time goes on, nobody is seen or heard."""
    await people.join(Person("ann", humming=True), room)
    async with recording(pool, plan_for(livekit, room, tmp_path, paused="card")) as run:
        await run.records(1.0)
        await run.recorder.send(NewOrders())

        def seen_and_heard(so_far: Footage) -> bool:
            loud = abs(so_far.sound[-so_far.hz // 3 :]) > 0.2
            return so_far.shows(0) and bool(loud.any())

        await until_recorded(tmp_path / "part-000.mp4", seen_and_heard)
        await run.recorder.send(Finish())
        await run.hears(Ended)
    assert not run.all(Measured)[-1].gaps
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert footage.numbers()[5] is None
    assert footage.numbers()[-3] is not None
    assert abs(footage.sound[: footage.hz // 3]).max() < 0.02


async def test_many_come_and_go(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Issue section 7: twenty who join and leave while it records."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(0.2)
        for number in range(20):
            who = f"guest{number}"
            await people.join(Person(who, width=160, height=90, video=number % 3 > 0, fps=10), room)
            if number % 2:
                await people.tell(who, "leave")
                await people.tell(f"guest{number - 1}", "leave")

        async def only_ann_is_there() -> bool:
            assert await present(livekit, room) == {"ann"}
            return True

        def only_ann_takes_part() -> bool:
            latest = {one.sid: one for one in run.all(TrackSeen)}.values()
            assert {one.identity for one in latest if one.end_ms is None} == {"ann"}
            return True

        # LiveKit waits for whoever hangs up in the middle of a negotiation to come back.
        await eventually(only_ann_is_there, within=40.0, every=0.2)
        # Those who were too quick to be subscribed are not told of.
        await eventually(only_ann_takes_part)
        alone = drawn_now(people)
        await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(alone))
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert ended.media
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert footage.numbers()[-3] is not None
    assert all(one.end_ms is not None for one in {one.sid: one for one in run.all(TrackSeen)}.values())


async def test_sources_change_while_it_runs(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Issue section 7: another resolution in the same track, another codec in the next, a turned phone."""
    await people.join(Person("ann"), room)
    plan = plan_for(livekit, room, tmp_path, RoomSource(layout="single-speaker"), layout="single-speaker")
    async with recording(pool, plan) as run:

        async def goes_on(turned: int = 0) -> None:
            """Pictures drawn from now on come into the file; to be read, they are turned back by quarters."""
            # The one after this may be drawn already.
            since = drawn_now(people) + 2

            def has_new_ones(so_far: Footage) -> bool:
                numbers = {read_number(np.rot90(one, turned)) for one in so_far.lumas}
                return len({one for one in numbers if one and since <= one < since + 1000}) > 25

            await until_recorded(tmp_path / "part-000.mp4", has_new_ones)

        await goes_on()
        await people.tell("ann", "change", width=640, height=360)
        await goes_on()
        await people.tell("ann", "unpublish", kind="video")
        await people.tell("ann", "publish", codec="h264")
        await eventually(lambda: "h264" in {one.codec for one in run.all(TrackSeen)})
        await goes_on()
        # What is drawn on its side says that it is to be turned clockwise, and then is as wide as the file.
        await people.tell("ann", "change", width=180, height=320, rotation=90)
        await goes_on(turned=1)
        await people.tell("ann", "change", width=320, height=180, rotation=0)
        await goes_on()
        await run.recorder.send(Finish())
        assert (await run.hears(Ended)).media


async def test_only_streams_and_none_can_be_reached(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-50: `streams_failed`; with a file beside it, the recording goes on."""
    nowhere = Destination("one", "rtmp://127.0.0.1:9/live/secret-key")
    plan = plan_for(
        livekit,
        room,
        tmp_path,
        streams="rtmp",
        destinations=(nowhere,),
        allow_private_urls=True,
        container="",
    )
    async with recording(pool, plan) as run:
        assert (await run.hears(Ended)).reason == "streams_failed"
    assert [one.state for one in run.all(StreamReport)][-1] == "failed"
    assert "secret-key" not in repr(run.said)
    with_file = plan_for(
        livekit, room, tmp_path, streams="rtmp", destinations=(nowhere,), allow_private_urls=True
    )
    async with recording(pool, with_file) as run:
        await run.hears(StreamReport)
        await run.records(0.5)
        await run.recorder.send(Finish())
        assert (await run.hears(Ended)).reason == "stopped"


async def test_a_destination_that_is_asked_for_before_it_records(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-51: orders that come while the room is joined are not lost, nor is a stream that begins a failed one."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    one = Destination("one", f"rtmp://127.0.0.1:{port}/live/key")
    plan = plan_for(livekit, room, tmp_path, streams="rtmp", allow_private_urls=True, container="")
    async with recording(pool, plan) as run:
        await run.recorder.send(NewOrders(destinations=(one,)))
        await run.hears(Active)
        assert (await run.hears(StreamReport)).id == "one"
        assert (await run.hears(Ended)).reason == "streams_failed"
    silent.close()


async def test_only_streams_and_the_last_is_taken_away(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-52: `streams_ended`."""
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    one = Destination("one", f"rtmp://127.0.0.1:{port}/live/key")
    plan = plan_for(
        livekit, room, tmp_path, streams="rtmp", destinations=(one,), allow_private_urls=True, container=""
    )
    async with recording(pool, plan) as run:
        await run.hears(Active)
        await run.recorder.send(NewOrders())
        assert (await run.hears(Ended)).reason == "streams_ended"
    silent.close()


async def test_a_private_destination_is_not_reached(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """The guard holds for streams unless the operator lifts it."""
    inside = socket.create_server(("127.0.0.1", 0))
    inside.setblocking(False)
    port = inside.getsockname()[1]
    one = Destination("one", f"rtmp://127.0.0.1:{port}/live/key")
    plan = plan_for(livekit, room, tmp_path, streams="rtmp", destinations=(one,), container="")
    async with recording(pool, plan) as run:
        assert (await run.hears(Ended)).reason == "streams_failed"
    with pytest.raises(BlockingIOError):
        inside.accept()
    inside.close()
