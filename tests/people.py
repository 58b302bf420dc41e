"""Synthetic participants: in a process of their own they draw their frame number, and flash and beep each full second.

    async with People(livekit) as people:
        await people.join(Person("ann", width=640, height=360), "a-room")
        await people.tell("ann", "mute", kind="video")

Run as a module it is that process: one command per line comes in, one answer per line goes out, both JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tests.marks import BLOCK, CYCLE, FLASH_SEC, HZ, Painter, beep_block

if TYPE_CHECKING:
    from livekit import rtc

    from tests.servers.livekit import LiveKitServer

_ANSWER_SEC = 20.0
SHARE_AHEAD = 20_000
"""So far ahead of their camera's are the numbers on somebody's shared screen."""
_COLOURS = [(60, 160, 110), (70, 100, 170), (80, 90, 90), (65, 170, 150), (75, 128, 80), (85, 110, 100)]


@dataclass(frozen=True, slots=True)
class Person:
    """Who joins and what they publish. `source` of the video: `camera` or `screen_share`; `rotation` in degrees.

    `humming` sounds all the time, so that they are heard as the speaker; `busy` moves a texture behind the number.
    `sharing` is a screen share beside the video, of its size and codec.
    """

    identity: str
    name: str = ""
    kind: str = "standard"
    video: bool = True
    audio: bool = True
    width: int = 320
    height: int = 180
    fps: int = 30
    codec: str = "vp8"
    kbps: int = 1500
    simulcast: bool = False
    source: str = "camera"
    rotation: int = 0
    hz: float = 1000.0
    humming: bool = False
    busy: bool = False
    hidden: bool = False
    sharing: bool = False


class People:
    """The parent's side: everybody who joins through one of these lives in one process, which ends with the block."""

    def __init__(self, server: LiveKitServer) -> None:
        self.address = server.address
        # Numbers are counted from here: they fill sixteen bits in 36 minutes, and none of these goes on for so long.
        self.origin = int(time.time())
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.people",
            str(self.origin),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def join(self, person: Person, room: str) -> dict[str, str]:
        """Returns the sids of what they publish by now: `{"video": …, "audio": …, "share": …}`."""
        answer: dict[str, str] = await self._ask(
            do="join", url=self.address.public_url, token=self._token(person, room), person=asdict(person)
        )
        return answer

    async def tell(self, identity: str, do: str, **more: Any) -> dict[str, str]:
        """`do`: `mute`, `unmute`, `unpublish` (with `kind`: `video`, `audio` or `share`), `publish` (with fields of
        `Person` to change; answers sids), `change` (the same, while published), `rename` (`name`), `leave`.
        """
        answer: dict[str, str] = await self._ask(do=do, identity=identity, **more)
        return answer

    async def _ask(self, **command: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock, asyncio.timeout(_ANSWER_SEC):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            await self._process.stdin.drain()
            answer = json.loads(await self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["sids"]

    def _token(self, person: Person, room: str) -> str:
        from livekit.api import AccessToken, VideoGrants

        grants = VideoGrants(
            room_join=True, room=room, hidden=person.hidden, can_update_own_metadata=True, can_subscribe=False
        )
        token = AccessToken(self.address.api_key, self.address.api_secret)
        token = token.with_identity(person.identity).with_grants(grants).with_ttl(timedelta(hours=2))
        if person.kind != "standard":
            token = token.with_kind(person.kind)  # type: ignore[arg-type]
        return token.with_name(person.name).to_jwt() if person.name else token.to_jwt()


# --- the process


@dataclass(slots=True)
class Publisher:
    """One participant in their room."""

    person: Person
    room: rtc.Room
    origin: int
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    sids: dict[str, str] = field(default_factory=dict)
    tracks: dict[str, Any] = field(default_factory=dict)

    async def publish(self) -> None:
        if self.person.video and "video" not in self.running:
            await self._publish_video("video", self.person.source)
        if self.person.sharing and "share" not in self.running:
            await self._publish_video("share", "screen_share", ahead=SHARE_AHEAD)
        if self.person.audio and "audio" not in self.running:
            await self._publish_audio()

    async def unpublish(self, kind: str) -> None:
        self.running.pop(kind).cancel()
        del self.tracks[kind]
        await self.room.local_participant.unpublish_track(self.sids.pop(kind))

    async def leave(self) -> None:
        for task in self.running.values():
            task.cancel()
        await self.room.disconnect()

    async def _publish_video(self, kind: str, shown: str, ahead: int = 0) -> None:
        from livekit import rtc

        person = self.person
        source = rtc.VideoSource(person.width, person.height)
        track = rtc.LocalVideoTrack.create_video_track(f"{person.identity}-{shown}", source)
        # Without a frame rate far above what is sent, libwebrtc leaves frames out.
        encoding = rtc.VideoEncoding(max_framerate=60, max_bitrate=person.kbps * 1000)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.Value(f"SOURCE_{shown.replace('_', '').upper()}"),
            video_codec=rtc.VideoCodec.Value(person.codec.upper()),
            video_encoding=encoding,
            simulcast=person.simulcast,
        )
        publication = await self.room.local_participant.publish_track(track, options)
        self.sids[kind], self.tracks[kind] = publication.sid, track
        self.running[kind] = asyncio.create_task(self._show(source, ahead))

    async def _publish_audio(self) -> None:
        from livekit import rtc

        # With a queue the SDK paces by itself, up to a second late.
        source = rtc.AudioSource(HZ, 1, queue_size_ms=0)
        track = rtc.LocalAudioTrack.create_audio_track(f"{self.person.identity}-sound", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await self.room.local_participant.publish_track(track, options)
        self.sids["audio"], self.tracks["audio"] = publication.sid, track
        self.running["audio"] = asyncio.create_task(self._sound(source))

    async def _show(self, source: rtc.VideoSource, ahead: int) -> None:
        from livekit import rtc

        painter: Painter | None = None
        number = int(time.time() * self.person.fps) + 1
        while True:
            person = self.person
            if painter is None or (painter.width, painter.height) != (person.width, person.height):
                colour = _COLOURS[sum(person.identity.encode()) % len(_COLOURS)]
                painter = Painter(person.width, person.height, colour, busy=person.busy)
            shows = number / person.fps
            data = painter.paint((number - self.origin * person.fps + ahead) % CYCLE, shows)
            frame = rtc.VideoFrame(person.width, person.height, rtc.VideoBufferType.I420, data)
            await _until(shows)
            source.capture_frame(frame, rotation=person.rotation // 90)  # type: ignore[arg-type]
            number = max(number + 1, int(time.time() * self.person.fps))

    async def _sound(self, source: rtc.AudioSource) -> None:
        silence = np.zeros(BLOCK, np.int16)
        number = int(time.time() * 100) + 1
        while True:
            await _until(number / 100)
            in_second = number % 100
            beeping = self.person.humming or in_second < FLASH_SEC * 100
            block = beep_block(in_second * BLOCK, self.person.hz) if beeping else silence
            _capture(source, block)
            number = max(number + 1, int(time.time() * 100) - 5)


def _capture(source: rtc.AudioSource, block: np.ndarray[Any, Any]) -> None:
    """As `AudioSource.capture_frame`, but without waiting for its call back, which costs more than the sound."""
    from livekit.rtc import AudioFrame
    from livekit.rtc._ffi_client import FfiClient
    from livekit.rtc._proto.ffi_pb2 import FfiRequest

    frame = AudioFrame(block.tobytes(), HZ, 1, BLOCK)
    _kept.append(frame)
    del _kept[:-200]
    request = FfiRequest()
    request.capture_audio_frame.source_handle = source._ffi_handle.handle
    request.capture_audio_frame.buffer.CopyFrom(frame._proto_info())
    FfiClient.instance.request(request)


_kept: list[Any] = []
"""Sound that the SDK may still be reading."""


async def _until(wall: float) -> None:
    await asyncio.sleep(max(0.0, wall - time.time()))


class Crowd:
    """Everybody of this process, by identity."""

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._people: dict[str, Publisher] = {}

    async def obey(self, command: dict[str, Any]) -> dict[str, str]:
        do = command["do"]
        if do == "join":
            return await self._join(command)
        publisher = self._people[command["identity"]]
        if do in ("mute", "unmute"):
            getattr(publisher.tracks[command["kind"]], do)()
        elif do == "unpublish":
            await publisher.unpublish(command["kind"])
        elif do in ("publish", "change"):
            changes = {name: value for name, value in command.items() if name not in ("do", "identity")}
            publisher.person = replace(publisher.person, **changes)
            await publisher.publish()
        elif do == "rename":
            await publisher.room.local_participant.set_name(command["name"])
        elif do == "leave":
            await self._people.pop(command["identity"]).leave()
        else:
            raise ValueError(f"nobody can {do}")
        return publisher.sids

    async def _join(self, command: dict[str, Any]) -> dict[str, str]:
        from livekit import rtc

        person = Person(**command["person"])
        room = rtc.Room()
        await room.connect(command["url"], command["token"], rtc.RoomOptions(auto_subscribe=False))
        publisher = self._people[person.identity] = Publisher(person, room, self._origin)
        await publisher.publish()
        return publisher.sids

    async def leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(*(one.leave() for one in self._people.values()), return_exceptions=True)


async def _serve() -> None:
    crowd = Crowd(int(sys.argv[1]))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        try:
            answer: dict[str, Any] = {"sids": await crowd.obey(json.loads(line))}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
            answer = {"error": f"{type(error).__name__}: {getattr(error, 'message', error)}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await crowd.leave()


if __name__ == "__main__":
    # libwebrtc has much to say about leaving.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    asyncio.run(_serve())
    # The SDK's threads still call back, which the interpreter's way out does not bear.
    os._exit(0)
