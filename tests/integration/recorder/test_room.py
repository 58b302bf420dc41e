"""What the recorder asks of LiveKit: the pictures it shows, in the size it shows them, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from adapters.recorder.pictures import Pictures
from adapters.recorder.room import RecordedRoom
from tests.conftest import Eventually
from tests.integration.recorder.stage import recorder_token
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer


class Viewer:
    """Wants the same after every change, as a session does."""

    def __init__(self, livekit: LiveKitServer, room: str, *, at_once: bool = False) -> None:
        token = recorder_token(livekit, room, "rec")
        self.room = RecordedRoom(livekit.address.public_url, token, self._changed, lambda: 0, at_once=at_once)
        self._wanted: tuple[dict[str, tuple[int, int]], set[str]] = ({}, set())

    def want(self, videos: dict[str, tuple[int, int]], sounds: set[str]) -> None:
        self._wanted = (videos, sounds)
        self._changed()

    def _changed(self) -> None:
        self.room.want(*self._wanted)

    def subscribed(self) -> set[str]:
        return {one.sid for one in self.room._publications() if one.track is not None}

    def pictures(self, sid: str) -> Pictures:
        feed = self.room.feeds.get(sid)
        return feed.pictures if feed is not None and feed.pictures is not None else Pictures()


@pytest.fixture
async def viewer(livekit: LiveKitServer, room: str, request: pytest.FixtureRequest) -> AsyncIterator[Viewer]:
    one = Viewer(livekit, room, at_once=getattr(request, "param", False))
    yield one
    await one.room.close()


async def test_the_layer_that_fits(viewer: Viewer, people: People, room: str, eventually: Eventually) -> None:
    """Issue section 6: the simulcast layer follows the tile."""
    sids = await people.join(
        Person("ann", width=1280, height=720, fps=15, kbps=2500, simulcast=True, audio=False), room
    )
    sid = sids["video"]
    await viewer.room.join()
    viewer.want({sid: (320, 180)}, set())
    # How soon the server sends more depends on what it makes of a busy machine's network.
    assert await eventually(lambda: viewer.pictures(sid).size == (320, 180), within=35)
    viewer.want({sid: (1280, 720)}, set())
    assert await eventually(lambda: viewer.pictures(sid).size == (1280, 720), within=35)
    viewer.want({sid: (634, 356)}, set())
    assert await eventually(lambda: viewer.pictures(sid).size == (640, 360), within=35)


@pytest.mark.parametrize("viewer", [False, True], indirect=True, ids=["one by one", "at once"])
async def test_what_is_not_shown_is_not_sent(
    viewer: Viewer, people: People, room: str, eventually: Eventually
) -> None:
    """Issue section 6: never shown, never subscribed; not shown any more, not sent, and back within a moment."""
    ann = await people.join(Person("ann"), room)
    bob = await people.join(Person("bob"), room)
    await viewer.room.join()
    viewer.want({ann["video"]: (320, 180)}, {bob["audio"]})
    await eventually(lambda: viewer.room.feeds.keys() == {ann["video"], bob["audio"]})
    await eventually(lambda: viewer.subscribed() == {ann["video"], bob["audio"]})
    pictures = viewer.pictures(ann["video"])
    await eventually(lambda: pictures.arrived > 5)
    viewer.want({}, {bob["audio"]})

    async def quiet() -> bool:
        before = pictures.arrived
        await asyncio.sleep(0.3)
        return pictures.arrived == before

    await eventually(quiet)
    before = pictures.arrived
    viewer.want({ann["video"]: (320, 180)}, set())
    await eventually(lambda: pictures.arrived > before)
    await eventually(lambda: viewer.room.feeds.keys() == {ann["video"]})


async def test_the_members_of_a_room(
    viewer: Viewer, people: People, room: str, eventually: Eventually
) -> None:
    """Names, kinds, order of joining and mutes as they are; the hidden are left out."""
    await people.join(Person("bob", name="Bob B.", kind="agent"), room)
    await people.join(Person("ann", video=False), room)
    await people.join(Person("ghost", hidden=True, video=False, audio=False), room)
    await viewer.room.join()
    await eventually(lambda: [one.identity for one in viewer.room.members] == ["bob", "ann"])
    assert (viewer.room.members[0].name, viewer.room.members[0].kind) == ("Bob B.", "agent")
    assert {one.source for one in viewer.room.members[0].publications} == {"camera", "microphone"}
    await people.tell("bob", "mute", kind="video")
    await people.tell("ann", "rename", name="Ann A.")
    await eventually(lambda: [one.muted for one in viewer.room.members[0].published("video")] == [True])
    await eventually(lambda: viewer.room.members[1].name == "Ann A.")
