"""What the tests of programs and muxers share: numbered pictures that flash, sound that beeps, and a look at the result."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from adapters.recorder.program import Program
from server.domain.egress import AudioEncoding, Encoding, VideoEncoding
from server.domain.egress_sources import RoomSource
from server.ports.recorder import FromRecorder, Measured, RecorderPlan, StreamReport
from tests.marks import BEEP_HZ, FLASH_SEC, HZ, Painter, beeps, is_flash, read_number

T = TypeVar("T")
WIDTH, HEIGHT, FPS = 320, 180, 30
VIDEO = VideoEncoding(width=WIDTH, height=HEIGHT, kbps=400)
SMALL = Encoding(VIDEO, AudioEncoding())
_painter = Painter(WIDTH, HEIGHT, (90, 110, 150), busy=True)


def plan_into(folder: Path, encoding: Encoding = SMALL, **more: Any) -> RecorderPlan:
    plan = RecorderPlan("EG_test", "", "", RoomSource(), encoding, str(folder))
    return replace(plan, **more)


def picture(number: int, fps: int = FPS) -> av.VideoFrame:
    """Flashes in the first tenth of every second."""
    data = np.frombuffer(_painter.paint(number, number / fps), np.uint8)
    return av.VideoFrame.from_ndarray(data.reshape(HEIGHT * 3 // 2, WIDTH), format="yuv420p")


def sound(first: int, count: int) -> NDArray[np.int16]:
    """Beeps with the flashes; below them a hum, so that silence is an error."""
    at = np.arange(first, first + count)
    beep = np.sin(at * (2 * np.pi * BEEP_HZ / HZ)) * (at % HZ < FLASH_SEC * HZ) * 16_000
    hum = np.sin(at * (2 * np.pi * 200 / HZ)) * 300
    return np.repeat((beep + hum).astype(np.int16)[:, None], 2, axis=1)


@dataclass(slots=True)
class Reports:
    """Everything a program said, from whichever thread."""

    said: list[FromRecorder] = field(default_factory=list)

    def __call__(self, report: FromRecorder) -> None:
        self.said.append(report)

    def all(self, kind: type[T]) -> list[T]:
        return [one for one in self.said if isinstance(one, kind)]

    def states(self, identity: str) -> list[str]:
        return [one.state for one in self.all(StreamReport) if one.id == identity]


@dataclass(slots=True)
class Feeder:
    """Feeds a program `frames` pictures and their sound, as fast as it takes them or, if `live`, in real time.

    `between` is called before each frame with its number, in the feeding thread.
    """

    program: Program
    fps: int = FPS
    video: bool = True
    audio: bool = True
    number: int = 0

    def feed(
        self, frames: int, *, live: bool = False, between: Callable[[int], None] = lambda number: None
    ) -> None:
        began = time.monotonic() - self.number / self.fps
        for _ in range(frames):
            between(self.number)
            if self.video:
                self.program.video(picture(self.number, self.fps), self.number)
            if self.audio:
                first, end = (number * HZ // self.fps for number in (self.number, self.number + 1))
                self.program.audio(sound(first, end - first))
            self.number += 1
            if live:
                early = began + self.number / self.fps - time.monotonic()
                # On a machine that stood still it goes on from there: seconds of media in a moment would be no live feed.
                began -= min(early, 0.0)
                time.sleep(max(early, 0.0))


class LiveFeed:
    """Feeds in real time in a thread, as the recorder does, until the block ends; then finishes the program."""

    def __init__(self, program: Program, **more: Any) -> None:
        self._feeder = Feeder(program, **more)
        self._stop = threading.Event()
        self._calls: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.slowest = 0.0
        self.measured: Measured | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Finishes the program. From a thread where the event loop serves a destination."""
        self._stop.set()
        self._thread.join(30)

    def call(self, action: Callable[[], None]) -> None:
        """In the feeding thread, to which the program belongs."""
        self._calls.append(action)

    @property
    def frames(self) -> int:
        return self._feeder.number

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            at = time.monotonic()
            while self._calls:
                self._calls.pop(0)()
            self._feeder.feed(1)
            self.slowest = max(self.slowest, time.monotonic() - at)
            self._stop.wait(max(0.0, began + self._feeder.number / self._feeder.fps - time.monotonic()))
        self.measured = self._feeder.program.finish()


@dataclass(frozen=True, slots=True)
class Look:
    """A file, decoded from end to end: any error of a decoder is raised."""

    numbers: list[int | None]
    times: list[float]
    flashes: list[float]
    beeps: list[float]
    sound: NDArray[np.float32]
    hz: int
    container_sec: float
    video: Any
    audio: Any

    @classmethod
    def at(cls, path: Path) -> Look:
        lumas: list[NDArray[np.uint8]] = []
        times: list[float] = []
        heard = np.zeros(0, np.float32)
        hz = HZ
        with av.open(str(path)) as file:
            for stream in file.streams:
                if stream.type in ("video", "audio"):
                    stream.codec_context.options = {"err_detect": "explode"}
            decoded: Iterator[Any] = file.decode()
            for frame in decoded:
                if isinstance(frame, av.VideoFrame):
                    lumas.append(frame.to_ndarray(format="gray8").astype(np.uint8, copy=False))
                    times.append(float(frame.time or 0.0))
                elif isinstance(frame, av.AudioFrame):
                    hz = frame.sample_rate
                    heard = _placed(heard, frame)
            video = _video_facts(file.streams.video)
            audio = _audio_facts(file.streams.audio)
            seconds = (file.duration or 0) / av.time_base
        white = [is_flash(luma) for luma in lumas]
        flashes = [times[i] for i in range(len(white)) if white[i] and not (i and white[i - 1])]
        return cls(
            [read_number(luma) for luma in lumas],
            times,
            flashes,
            beeps(heard, hz, quiet_sec=0.15),
            heard,
            hz,
            seconds,
            video,
            audio,
        )

    @property
    def audio_sec(self) -> float:
        return len(self.sound) / self.hz

    def loudness(self, start: float, end: float) -> float:
        """The loudest sample between two times, in 0…1."""
        return float(np.abs(self.sound[int(start * self.hz) : int(end * self.hz)]).max())

    def steps(self) -> set[int]:
        """Differences between pictures' times, in ms."""
        return {round((b - a) * 1000) for a, b in itertools.pairwise(self.times)}

    def offsets(self) -> list[float]:
        """Sound minus picture at each flash."""
        found = []
        for flash in self.flashes:
            near = [beep - flash for beep in self.beeps if abs(beep - flash) < 0.4]
            if near:
                found.append(min(near, key=abs))
        return found


def _placed(heard: NDArray[np.float32], frame: av.AudioFrame) -> NDArray[np.float32]:
    """Appended where its time says, with silence in a gap."""
    samples: NDArray[Any] = frame.to_ndarray().astype(np.float32)
    if frame.format.name.startswith("s16"):
        samples = samples / 32768
    mono = samples.mean(axis=0) if frame.format.is_planar else samples.reshape(-1, 2).mean(axis=1)
    at = round((frame.time or 0.0) * frame.sample_rate)
    gap = max(0, at - len(heard)) if abs(at - len(heard)) > 2 else 0
    lead = max(0, -at) if not len(heard) else 0
    return np.concatenate([heard, np.zeros(gap, np.float32), mono[lead:].astype(np.float32)])


def _video_facts(streams: Sequence[Any]) -> dict[str, Any]:
    if not streams:
        return {}
    stream = streams[0]
    context = stream.codec_context
    return {
        "codec": context.name,
        "profile": context.profile,
        "rate": stream.average_rate,
        "colour": (context.color_primaries, context.color_trc, context.colorspace, context.color_range),
        "size": (context.width, context.height),
    }


def _audio_facts(streams: Sequence[Any]) -> dict[str, Any]:
    if not streams:
        return {}
    context = streams[0].codec_context
    return {"codec": context.name, "hz": context.sample_rate, "channels": context.channels}


def packets(path: Path, media: str) -> list[tuple[Fraction, Fraction, bool]]:
    """(pts, dts, key) in seconds of one stream."""
    with av.open(str(path)) as file:
        stream = (file.streams.video if media == "video" else file.streams.audio)[0]
        return [
            (packet.pts * packet.time_base, packet.dts * packet.time_base, packet.is_keyframe)
            for packet in file.demux(stream)
            if packet.pts is not None and packet.dts is not None and packet.size
        ]


def continuity_errors(data: bytes) -> int:
    """Jumps of the counters of an MPEG-TS (ISO/IEC 13818-1, 2.4.3.3)."""
    last: dict[int, int] = {}
    errors = 0
    for at in range(0, len(data), 188):
        assert data[at] == 0x47
        pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        counter, payload = data[at + 3] & 0x0F, bool(data[at + 3] & 0x10)
        if pid in last:
            errors += counter != (last[pid] + payload) & 0x0F
        last[pid] = counter
    return errors
