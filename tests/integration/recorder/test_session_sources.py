"""What each source records, waits for and ends with."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import numpy as np

from adapters.recorder.process import RecorderPool
from adapters.recorder.session import Patience, record_room
from server.domain.egress import AudioEncoding, Destination, Encoding
from server.domain.egress_sources import (
    AudioRoute,
    MediaSource,
    ParticipantSource,
    RoomSource,
    TrackCompositeSource,
)
from server.domain.layout import Rect, StageTrack, arrange
from server.ports.recorder import Active, Broke, Ended, Finish, FromRecorder, Joined, RecorderPlan, TrackSeen
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, drawn_now, plan_for, recording, until_recorded
from tests.people import SHARE_AHEAD, People, Person
from tests.servers.livekit import LiveKitServer
from tests.servers.websocket import listening_ear

SOUND_ONLY = Encoding(None, AudioEncoding("opus", hz=48_000))
LEFT, RIGHT = 0, 1


async def refusal(plan: RecorderPlan) -> Broke:
    """What a recorder of little patience says."""
    said: list[FromRecorder] = []
    async with asyncio.timeout(20):
        await record_room(plan, asyncio.Queue(), said.append, Patience(source_sec=0.5))
    assert isinstance(said[-1], Broke)
    return said[-1]


async def test_a_participant_who_does_not_come(livekit: LiveKitServer, room: str, tmp_path: Path) -> None:
    """LK-30: 404 after the wait, by name."""
    broke = await refusal(plan_for(livekit, room, tmp_path, ParticipantSource("ann")))
    assert (broke.http_code, broke.message) == (404, "participant ann not found")
    assert not broke.retry


async def test_a_track_that_does_not_come(livekit: LiveKitServer, room: str, tmp_path: Path) -> None:
    """LK-31: 404 after the wait, by sid."""
    broke = await refusal(plan_for(livekit, room, tmp_path, TrackCompositeSource("TR_none")))
    assert (broke.http_code, broke.message) == (404, "track TR_none not found")


async def test_a_track_of_the_other_kind(
    livekit: LiveKitServer, people: People, room: str, tmp_path: Path
) -> None:
    """LK-31: 400 at once."""
    sids = await people.join(Person("ann"), room)
    source = TrackCompositeSource(audio_track_id=sids["video"])
    assert (await refusal(plan_for(livekit, room, tmp_path, source))).http_code == 400


async def test_one_participant_through_mute_and_republish(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """EG-02: their picture only, black while there is none, over when they leave."""
    await people.join(Person("ann"), room)
    await people.join(Person("bob"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path, ParticipantSource("ann"))) as run:

        async def is_shown(since: int = 0) -> None:
            await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(since))

        async def is_black() -> None:
            await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows_nobody())

        await is_shown()
        await people.tell("ann", "mute", kind="video")
        await is_black()
        await people.tell("ann", "unmute", kind="video")
        await is_shown(drawn_now(people))
        await people.tell("ann", "unpublish", kind="video")
        await is_black()
        await people.tell("ann", "publish")
        await eventually(lambda: sum(one.media == "video" for one in run.all(TrackSeen)) >= 3)
        await is_shown(drawn_now(people))
        await people.tell("ann", "leave")
        ended = await run.hears(Ended)
    assert ended.reason == "source_closed"
    assert run.all(Joined)[0].publisher_identity == "ann"
    assert {one.identity for one in run.all(TrackSeen)} == {"ann"}
    numbers = Footage.read(tmp_path / "part-000.mp4").numbers()
    shown = [number is not None for number in numbers]
    # The first pictures may be late.
    shown = shown[shown.index(True) :]
    changes = [now for before, now in itertools.pairwise(shown) if before != now]
    assert changes[:3] == [False, True, False]
    assert True in changes[3:]


async def test_a_screen_share_beside_a_camera(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-14, EG-02: on a grid it has the stage while it is there; of a participant, it alone can be recorded."""
    ann = await people.join(Person("ann", sharing=True), room)
    await people.join(Person("bob", audio=False), room)
    cameras = [StageTrack(who, who, who, "camera", 320, 180) for who in ("ann", "bob")]
    share = StageTrack("share", "ann", "ann", "screen_share", 320, 180)
    stage = arrange("grid", [share, *cameras], None, 640, 360)[0].rect
    # There it is shown whole, in the middle.
    width = stage.height * 16 // 9
    shared = Rect(stage.x + (stage.width - width) // 2, stage.y, width, stage.height)
    alone = tmp_path / "alone"
    alone.mkdir()
    source = ParticipantSource("ann", screen_share=True)
    async with (
        recording(pool, plan_for(livekit, room, tmp_path)) as everybody,
        recording(pool, plan_for(livekit, room, alone, source)) as one,
    ):
        ahead = drawn_now(people) + SHARE_AHEAD
        await until_recorded(tmp_path / "part-000.mp4", lambda so_far: so_far.shows(ahead, shared))
        await until_recorded(alone / "part-000.mp4", lambda so_far: so_far.shows(ahead))
        await people.tell("ann", "unpublish", kind="share")
        since = drawn_now(people)
        places = [tile.rect for tile in arrange("grid", cameras, None, 640, 360)]
        await until_recorded(
            tmp_path / "part-000.mp4", lambda so_far: all(so_far.shows(since, place) for place in places)
        )
        await until_recorded(alone / "part-000.mp4", lambda so_far: so_far.shows_nobody())
        for run in (everybody, one):
            await run.recorder.send(Finish())
            assert (await run.hears(Ended)).media
    assert {seen.sid for seen in one.all(TrackSeen)} == {ann["share"]}
    numbers = Footage.read(alone / "part-000.mp4").numbers()
    assert all(number >= SHARE_AHEAD for number in numbers if number is not None)


async def test_two_tracks_until_both_ended(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-31: tracks of different participants."""
    picture = (await people.join(Person("ann", audio=False), room))["video"]
    sound = (await people.join(Person("bob", video=False), room))["audio"]
    source = TrackCompositeSource(sound, picture)
    async with recording(pool, plan_for(livekit, room, tmp_path, source)) as run:
        await until_recorded(
            tmp_path / "part-000.mp4",
            lambda so_far: len({*so_far.numbers()} - {None}) > 15 and bool(so_far.beeps()),
        )
        await people.tell("ann", "unpublish", kind="video")
        await asyncio.sleep(0.5)
        assert not run.all(Ended)
        await people.tell("bob", "leave")
        assert (await run.hears(Ended)).reason == "source_closed"
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert len({number for number in footage.numbers() if number is not None}) > 15
    assert footage.beeps()


async def test_sound_alone_with_agents_on_the_left(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-33: `dual_channel_agent`; no picture is subscribed."""
    await people.join(Person("agent", kind="agent", video=False, humming=True), room)
    await people.join(Person("ann", video=True), room)
    source = RoomSource(audio_only=True, audio_mixing="dual_channel_agent")
    plan = plan_for(livekit, room, tmp_path, source, encoding=SOUND_ONLY, container="ogg")
    async with recording(pool, plan) as run:
        await run.recorded(5.0)
        await run.recorder.send(Finish())
        assert (await run.hears(Ended)).media
    assert {one.media for one in run.all(TrackSeen)} == {"audio"}
    footage = Footage.read(tmp_path / "part-000.ogg")
    assert not footage.lumas
    loud = [float((np.abs(side) > 0.1).mean()) for side in footage.sides]
    # A tenth of every second, beside all of it; a busy publisher leaves out some of either.
    assert 0.01 < loud[RIGHT] < 0.2
    assert loud[LEFT] > 0.4


async def test_composed_sound_by_websocket_tells_of_muting(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Livekit-surface 4.3: as for a single track, once everybody who could be heard is muted."""
    await people.join(Person("ann", video=False, humming=True), room)
    source = MediaSource(capture_all_audio=True)
    async with listening_ear() as ear:
        plan = plan_for(
            livekit,
            room,
            tmp_path,
            source,
            encoding=Encoding(None, AudioEncoding("pcm", hz=48_000)),
            container="",
            streams="websocket",
            destinations=(Destination("one", ear.url),),
            allow_private_urls=True,
        )
        async with recording(pool, plan) as run:
            await run.hears(Active)
            await eventually(lambda: len(ear.samples) > 48_000 * 4)
            await people.tell("ann", "mute", kind="audio")
            await eventually(lambda: ear.texts == ['{"muted":true}'])
            await people.tell("ann", "unmute", kind="audio")
            await eventually(lambda: ear.texts == ['{"muted":true}', '{"muted":false}'])
            await run.recorder.send(Finish())
            assert (await run.hears(Ended)).reason == "stopped"


async def test_routes_of_a_media_egress(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """LK-34: one picture, chosen sounds on chosen sides; it outlives the participant."""
    await people.join(Person("ann", humming=True), room)
    await people.join(Person("bob", humming=True), room)
    source = MediaSource(
        video_identity="ann", routes=(AudioRoute(participant_identity="bob", channel="right"),)
    )
    async with recording(pool, plan_for(livekit, room, tmp_path, source)) as run:
        await until_recorded(
            tmp_path / "part-000.mp4",
            lambda so_far: so_far.shows(0) and bool((so_far.sides[RIGHT] > 0.2).any()),
        )
        await people.tell("ann", "leave")
        await asyncio.sleep(0.5)
        await run.recorder.send(Finish())
        assert (await run.hears(Ended)).reason == "stopped"
    assert {(one.identity, one.media) for one in run.all(TrackSeen)} == {("ann", "video"), ("bob", "audio")}
    footage = Footage.read(tmp_path / "part-000.mp4")
    assert np.abs(footage.sides[LEFT]).max() < 0.02
    assert np.abs(footage.sides[RIGHT]).max() > 0.2
