"""What the tests of recorders share: a plan for a room, the process, its reports, and a look at what it wrote."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from livekit.api import AccessToken, ListParticipantsRequest, LiveKitAPI, VideoGrants

from adapters.recorder.process import Recorder, RecorderPool
from server.domain.egress import AudioEncoding, Encoding, VideoEncoding
from server.domain.egress_sources import RoomSource, Source
from server.ports.recorder import Active, Broke, Ended, FromRecorder, Measured, RecorderDied, RecorderPlan
from tests.marks import beeps, is_flash, read_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.domain.layout import Rect
    from tests.people import People
    from tests.servers.livekit import LiveKitServer

T = TypeVar("T")
SMALL = Encoding(VideoEncoding(width=640, height=360, kbps=1500), AudioEncoding())


def recorder_token(server: LiveKitServer, room: str, identity: str) -> str:
    grants = VideoGrants(
        room_join=True,
        room=room,
        can_subscribe=True,
        can_publish=False,
        can_publish_data=False,
        hidden=True,
        recorder=True,
    )
    token = AccessToken(server.address.api_key, server.address.api_secret).with_identity(identity)
    return token.with_kind("egress").with_grants(grants).with_ttl(timedelta(hours=1)).to_jwt()


def plan_for(
    server: LiveKitServer, room: str, folder: Path, source: Source | None = None, **more: Any
) -> RecorderPlan:
    """A small MP4 of the room; `more` changes fields of the plan."""
    egress_id = f"EG_{uuid.uuid4().hex[:12]}"
    plan = RecorderPlan(
        egress_id,
        server.address.public_url,
        recorder_token(server, room, egress_id),
        source or RoomSource(),
        SMALL,
        str(folder),
        container="mp4",
    )
    return replace(plan, **more)


async def present(server: LiveKitServer, room: str) -> set[str]:
    """Identities of the people whom LiveKit itself takes to be there."""
    address = server.address
    async with LiveKitAPI(address.url, address.api_key, address.api_secret) as livekit:
        listed = await livekit.room.list_participants(ListParticipantsRequest(room=room))
    return {one.identity for one in listed.participants if not one.permission.recorder}


@dataclass(slots=True)
class Run:
    """A recorder at work and what it has said."""

    recorder: Recorder
    said: list[FromRecorder] = field(default_factory=list)
    death: RecorderDied | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        try:
            async for report in self.recorder.reports():
                self.said.append(report)
                self._news.set()
        except RecorderDied as death:
            self.death = death
        self._news.set()

    def all(self, kind: type[T]) -> list[T]:
        return [one for one in self.said if isinstance(one, kind)]

    async def hears(self, kind: type[T], within: float = 20.0) -> T:
        """The first report of this kind."""
        async with asyncio.timeout(within):
            while not self.all(kind):
                self._news.clear()
                end = [one for one in self.said if isinstance(one, Ended | Broke)]
                if end or self.death:
                    raise AssertionError(f"no {kind.__name__} before {end or self.death}")
                await self._news.wait()
        return self.all(kind)[0]

    async def records(self, seconds: float) -> None:
        """Waits until so much time of the recording has passed."""
        await self.hears(Active)
        await asyncio.sleep(seconds)

    async def recorded(self, seconds: float, within: float = 30.0) -> None:
        """Waits until the recorder says that it has so much, however long that takes it."""
        await self._news_of(
            lambda: any(one.duration_ms >= seconds * 1000 for one in self.all(Measured)), within
        )

    async def goes_on(self, frames: int, within: float = 30.0) -> None:
        """Waits until the recorder says that it has so many frames more than at last."""
        before = self.all(Measured)[-1].composed
        await self._news_of(lambda: self.all(Measured)[-1].composed >= before + frames, within)

    async def halts(self, within: float = 30.0) -> None:
        """Waits until the recorder says three times that there is no more: the order to pause has come through."""
        told = len(self.all(Measured))

        def halted() -> bool:
            latest = [one.duration_ms for one in self.all(Measured)[told:]][-3:]
            return len(latest) == 3 and len(set(latest)) == 1

        await self._news_of(halted, within)

    async def _news_of(self, condition: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self._news.clear()
                end = [one for one in self.said if isinstance(one, Ended | Broke)]
                if end or self.death:
                    raise AssertionError(f"not before {end or self.death}")
                await self._news.wait()


@contextlib.asynccontextmanager
async def recording(pool: RecorderPool, plan: RecorderPlan) -> AsyncIterator[Run]:
    run = Run(await pool.start(plan))
    listening = asyncio.create_task(run.listen())
    try:
        yield run
    finally:
        await run.recorder.kill()
        await listening


@dataclass(frozen=True, slots=True)
class Footage:
    """A decoded file: luma per frame, presentation times in seconds, left and right sound in -1…1."""

    lumas: list[NDArray[np.uint8]]
    times: list[float]
    sides: NDArray[np.float32]
    hz: int

    @classmethod
    def read(cls, path: Path) -> Footage:
        import av

        lumas: list[NDArray[np.uint8]] = []
        times: list[float] = []
        blocks: list[NDArray[np.float32]] = []
        hz, sound_from = 48_000, 0.0
        with av.open(str(path)) as file:
            frames: Iterable[Any] = file.decode()
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    lumas.append(frame.to_ndarray(format="gray8").astype(np.uint8, copy=False))
                    times.append(float(frame.time or 0.0))
                else:
                    assert isinstance(frame, av.AudioFrame)
                    hz = frame.sample_rate
                    if not blocks:
                        sound_from = float(frame.time or 0.0)
                    blocks.append(frame.to_ndarray().astype(np.float32))
        sides = np.concatenate(blocks, axis=1) if blocks else np.zeros((2, 0), np.float32)
        lead = round(sound_from * hz)
        silence = np.zeros((2, max(lead, 0)), np.float32)
        return cls(lumas, times, np.concatenate([silence, sides[:, max(-lead, 0) :]], axis=1), hz)

    @property
    def sound(self) -> NDArray[np.float32]:
        mono: NDArray[np.float32] = self.sides.mean(axis=0)
        return mono

    def in_rect(self, rect: Rect | None = None) -> list[NDArray[np.uint8]]:
        if rect is None:
            return self.lumas
        return [one[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] for one in self.lumas]

    def numbers(self, rect: Rect | None = None) -> list[int | None]:
        return [read_number(one) for one in self.in_rect(rect)]

    def flashes(self, rect: Rect | None = None) -> list[float]:
        """When flashes begin."""
        on = [is_flash(one) for one in self.in_rect(rect)]
        return [self.times[index] for index in range(1, len(on)) if on[index] and not on[index - 1]]

    def beeps(self) -> list[float]:
        return beeps(self.sound, self.hz)

    def shows(self, since: int, rect: Rect | None = None) -> bool:
        """Whether a picture of that number or one of the next minutes stands at the end."""
        if not self.lumas:
            return False
        number = read_number(self.in_rect(rect)[-1])
        return number is not None and since <= number < since + 5000

    def shows_nobody(self) -> bool:
        """Whether nobody can be read in the last pictures; a single one may be torn while it is written."""
        return bool(self.lumas) and all(read_number(one) is None for one in self.lumas[-5:])

    def offsets(self, rect: Rect | None = None) -> list[float]:
        """Sound minus picture in seconds, for each flash with a beep near."""
        heard = self.beeps()
        return [
            min(near, key=abs)
            for flash in self.flashes(rect)
            if (near := [beep - flash for beep in heard if abs(beep - flash) < 0.4])
        ]


def drawn_now(people: People, fps: int = 30) -> int:
    """The number that each of these people draws at this moment."""
    return int((time.time() - people.origin) * fps)


async def until_recorded(path: Path, condition: Callable[[Footage], bool], within: float = 30.0) -> None:
    """Waits until the file, as far as it can be read while it is written (all but the last second or so), is like that.

    How long a picture is on its way when the machine is busy cannot be known.
    """
    async with asyncio.timeout(within):
        while True:
            if await asyncio.to_thread(_is_like, path, condition):
                return
            await asyncio.sleep(0.5)


def _is_like(path: Path, condition: Callable[[Footage], bool]) -> bool:
    import av

    try:
        footage = Footage.read(path)
    except (av.FFmpegError, OSError):
        # Nothing of it is there yet, or half of what is written at this moment.
        return False
    return condition(footage)
