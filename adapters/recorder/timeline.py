"""The recorder's clock: at the plan's rate it composes a picture and mixes the sound beside it, into the program."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from adapters.recorder.mixer import HZ, Voice, mix

if TYPE_CHECKING:
    import av

    from adapters.compositor.compositor import Compositor
    from adapters.compositor.picture import Picture
    from adapters.recorder.pictures import Pictures
    from adapters.recorder.program import Program
    from server.domain.layout import StageTrack

# Sound is mixed for a whole frame's time at its beginning, so it is held back by one frame and what arrival is uneven.
HOLD_SEC = 0.075
# Later than this is no hiccup: the machine stood still, and time is left out rather than made up for.
_STALL_SEC = 2.0
_AUDIO_ONLY_RATE = 50
# Up to here the pictures that were due are still at hand (`pictures._KEPT_SEC`), as is their sound: the lag is made up for
# without leaving anything out. Files can wait; to who watches a stream it is a delay.
_LATE_SEC = 1.5
_LATE_LIVE_SEC = 0.35
# On a machine that is too slow the picture still moves.
_MAX_REPEATS = 2
# While nothing is recorded, calls are run so often.
_CUT_LOOK_SEC = 0.1
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What the next frame is made of; replaced as a whole. `holds` in seconds, by track id, where it is not the usual.

    `card` is a text that stands in for everything, as `silent` does for the sound.
    """

    layout: str = "grid"
    tracks: tuple[StageTrack, ...] = ()
    speaker: str | None = None
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    holds: Mapping[str, float] = field(default_factory=dict)
    voices: Mapping[str, Voice] = field(default_factory=dict)
    card: str = ""
    silent: bool = False


@dataclass(slots=True)
class Counts:
    """`composed` are all frames; `repeated` those for which there was no time; `dropped` those left out by a stall."""

    composed: int = 0
    repeated: int = 0
    dropped: int = 0
    gaps: list[Mapping[str, int | str]] = field(default_factory=list)


class Clock:
    """Positions of the mixer: samples since the process began to record."""

    def __init__(self) -> None:
        self._origin = time.monotonic()

    def position(self, at: float | None = None) -> int:
        return int(((time.monotonic() if at is None else at) - self._origin) * HZ)


class Timeline:
    """Runs in one thread of its own from `start` to `stop`; nothing else may touch the program meanwhile.

    `began` is called in that thread before the first frame, with ns since 1970; `failed` when the program refuses. It ends
    by itself after `limit_sec`, if that is not 0. Scenes, cuts and the end hold from the moment they are asked for: frames
    that were due before, and are late, are still made as it was then.
    """

    def __init__(
        self,
        program: Program,
        compositor: Compositor | None,
        clock: Clock,
        *,
        fps: int,
        with_audio: bool,
        began: Callable[[int], None],
        failed: Callable[[Exception], None],
        limit_sec: float = 0.0,
    ) -> None:
        self._program = program
        self._compositor = compositor
        self._clock = clock
        self._rate = fps if compositor is not None else _AUDIO_ONLY_RATE
        self._with_audio = with_audio
        self._began = began
        self._failed = failed
        self._limit_sec = limit_sec
        self._scene = Scene()
        self._scenes: deque[tuple[float, Scene]] = deque()
        self._cuts: deque[tuple[float, bool]] = deque()
        self._is_out = False
        self.counts = Counts()
        # Whether somebody watches while it is recorded.
        self.live = False
        self._calls: list[Callable[[], None]] = []
        self._stop = threading.Event()
        self._until = 0.0
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)
        self._start = 0.0
        self._number = 0
        self._repeats = 0
        self._frame: av.VideoFrame | None = None
        self._card: tuple[str, av.VideoFrame] | None = None

    @property
    def seconds(self) -> float:
        """What has been recorded."""
        return self._number / self._rate

    @property
    def position(self) -> float:
        """Where in the recording it is now, seconds: what is late has its place already, unless it will be left out."""
        if not self._start or self._is_out or self._stop.is_set():
            return self.seconds
        now = min((at for at, out in tuple(self._cuts) if out), default=time.monotonic())
        lag = now - self._start - self.seconds
        reached = self.seconds + lag if 0 < lag <= _STALL_SEC else self.seconds
        return min(reached, self._limit_sec or reached)

    def show(self, scene: Scene) -> None:
        """What frames are made of that are due from now on."""
        self._scenes.append((time.monotonic(), scene))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the frame in hand, and for those that were due until now."""
        if not self._stop.is_set():
            self._until = time.monotonic()
        self._stop.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def cut(self, on: bool) -> None:
        """From now on nothing is recorded, or again."""
        self._cuts.append((time.monotonic(), on))
        self._woken.set()

    def call(self, action: Callable[[], None]) -> None:
        """Runs `action` between two frames: the program belongs to this thread."""
        self._calls.append(action)

    def _run(self) -> None:
        try:
            self._tick_until_stopped()
        except Exception as error:  # noqa: BLE001 - whatever it is ends the recording and is told
            self._failed(error)

    def _tick_until_stopped(self) -> None:
        now = time.monotonic()
        self._start = now
        self._program.started_at = time.time_ns() - int(HOLD_SEC * _NS)
        self._began(self._program.started_at)
        while not self._is_over(due := self._start + self._number / self._rate):
            if self._is_cut(due):
                self._wait_out_cut(due)
                continue
            now = time.monotonic()
            if now < due:
                self._stop.wait(due - now)
                continue
            self._run_calls()
            missing = min(now, self._until) - due if self._stop.is_set() else now - due
            if missing > _STALL_SEC:
                self._leave_out(missing, "STALLED")
                continue
            self._emit(due, late=now - due > (_LATE_LIVE_SEC if self.live else _LATE_SEC))

    def _is_over(self, due: float) -> bool:
        limited = bool(self._limit_sec) and self.seconds >= self._limit_sec
        return limited or (self._stop.is_set() and due >= self._until)

    def _is_cut(self, due: float) -> bool:
        while self._cuts and self._cuts[0][0] <= due:
            self._is_out = self._cuts.popleft()[1]
        return self._is_out

    def _scene_at(self, due: float) -> Scene:
        while self._scenes and self._scenes[0][0] <= due:
            self._scene = self._scenes.popleft()[1]
        return self._scene

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.pop(0)()

    def _wait_out_cut(self, due: float) -> None:
        while not self._cuts:
            if self._stop.is_set():
                # Nothing of the cut is wanted.
                self._until = due
                return
            self._woken.wait(_CUT_LOOK_SEC)
            self._woken.clear()
            self._run_calls()
            # Pictures that nobody takes would fill the memory.
            now = time.monotonic()
            self._pictures(self._scene_at(now), now)
        at, out = self._cuts.popleft()
        if at > due and not out:
            self._leave_out(at - due, "PAUSED")
        self._is_out = out

    def _leave_out(self, seconds: float, reason: str) -> None:
        frames = math.ceil(seconds * self._rate)
        if reason == "STALLED":
            self.counts.dropped += frames
        gone = frames / self._rate
        self._start += gone
        self._program.started_at += int(gone * _NS)
        self.counts.gaps.append(
            {"startMs": round(self.seconds * 1000), "durationMs": round(gone * 1000), "reason": reason}
        )

    def _emit(self, due: float, *, late: bool) -> None:
        scene = self._scene_at(due)
        number = self._number
        if self._compositor is not None:
            if late and self._frame is not None and self._repeats < _MAX_REPEATS:
                self._repeats += 1
                self.counts.repeated += 1
            else:
                self._repeats = 0
                self._frame = self._compose(self._compositor, scene, due)
            self._program.video(self._frame, number)
        self.counts.composed += 1
        if self._with_audio:
            first, end = number * HZ // self._rate, (number + 1) * HZ // self._rate
            if scene.silent:
                samples = np.zeros((end - first, 2), np.int16)
            else:
                base = self._clock.position(self._start - HOLD_SEC)
                samples = mix(scene.voices, base + first, end - first)
            self._program.audio(samples)
        self._number += 1

    def _compose(self, compositor: Compositor, scene: Scene, due: float) -> av.VideoFrame:
        pictures = self._pictures(scene, due)
        if scene.card:
            if self._card is None or self._card[0] != scene.card:
                self._card = (scene.card, compositor.card(scene.card))
            return self._card[1]
        frame, _ = compositor.compose(scene.layout, scene.tracks, scene.speaker, pictures, due)
        return frame

    def _pictures(self, scene: Scene, due: float) -> Mapping[str, Picture]:
        """Those to show at `due`."""
        pictures: dict[str, Picture] = {}
        for sid, waiting in scene.pictures.items():
            # The nearest one: half a frame early is as good as half a frame late.
            picture = waiting.pick(due + 0.5 / self._rate - scene.holds.get(sid, HOLD_SEC))
            if picture is not None:
                pictures[sid] = picture
        return pictures
