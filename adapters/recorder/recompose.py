"""A composition of a room that was recorded track by track, made afterwards in any layout, quality and format."""

from __future__ import annotations

import asyncio
import bisect
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.passthrough.playback import PicturePlayer, SoundPlayer
from adapters.passthrough.timeline import RecordedRoom, RecordedTrack, read_timelines
from adapters.recorder.members import Member, Publication, in_order
from adapters.recorder.mixer import HZ, bend
from adapters.recorder.stage import RoomStage, Show
from server.domain.egress import Encoding
from server.domain.egress_sources import RoomSource
from server.domain.layout import StageOrder, StageTrack, arrange
from server.domain.speaker import SpeakerChoice
from server.ports.recorder import Finished, RecorderPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from adapters.compositor.picture import Picture

_NS = 1_000_000_000
# Without pictures, sound is made in pieces of this rate.
_SOUND_RATE = 50
_LISTEN_SEC = 0.1
_REPORT_SEC = 0.5
_MOST_WAITING = 500


class NothingRecorded(ValueError):
    """There is no media in the folder."""


async def compose_tracks(
    folder: Path,
    target: Path,
    layout: str,
    encoding: Encoding,
    container: str,
    on_progress: Callable[[float], None],
) -> Finished:
    """Makes `target` of the tracks and timelines in `folder`; `on_progress` gets the part done, 0–1, now and then.

    Works in a folder beside the target, which it removes. Raise NothingRecorded, FileNotFoundError without a timeline, and
    OSError when the disk refuses. Cancelling ends it within a frame or so.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()
    work = target.with_name(f".{target.name}.work")

    def progress(done: float) -> None:
        loop.call_soon_threadsafe(on_progress, done)

    running = asyncio.create_task(
        asyncio.to_thread(_compose, folder, work, target, layout, encoding, container, progress, stop)
    )
    try:
        return await asyncio.shield(running)
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def _compose(
    folder: Path,
    work: Path,
    target: Path,
    layout: str,
    encoding: Encoding,
    container: str,
    progress: Callable[[float], None],
    stop: threading.Event,
) -> Finished:
    from adapters.recorder.muxer import finish
    from adapters.recorder.program import Program

    room = read_timelines(folder)
    spans = _spans(room)
    if not spans:
        raise NothingRecorded("nothing was recorded")
    work.mkdir(parents=True, exist_ok=True)
    source = RoomSource(layout, audio_only=encoding.video is None, video_only=encoding.audio is None)
    plan = RecorderPlan("", "", "", source, encoding, str(work), container=container, layout=layout)
    program = Program(plan, lambda _: None)
    program.started_at = spans[0][0]
    scene = _Scene(room, folder, source, encoding)
    total = sum(end - start for start, end in spans)
    rate = encoding.video.fps if encoding.video is not None else _SOUND_RATE
    reported = 0.0
    try:
        for number in range(max(1, total * rate // _NS)):
            if stop.is_set():
                raise InterruptedError("the composition was stopped")
            frame, sound = scene.at(_moment(spans, number * _NS // rate), number, rate)
            if frame is not None:
                program.video(frame, number)
            if sound is not None:
                program.audio(sound)
            while program.backlog > _MOST_WAITING:
                time.sleep(0.005)
            if time.monotonic() - reported > _REPORT_SEC:
                reported = time.monotonic()
                progress(number * _NS / rate / total)
    finally:
        scene.close()
        program.finish()
    finished = finish([work / f"part-000.{container}"], target, container)
    progress(1.0)
    return finished


def _spans(room: RecordedRoom) -> list[tuple[int, int]]:
    """The moments that are shown: from the first media to the end, without pauses."""
    starts = [file.start_ns for file in room.files if file.stretches]
    if not starts:
        return []
    spans, begin = [], min(starts)
    for start, end in sorted(room.pauses):
        if start > begin:
            spans.append((begin, start))
        begin = max(begin, end)
    if room.end_ns > begin:
        spans.append((begin, room.end_ns))
    return spans


def _moment(spans: list[tuple[int, int]], at: int) -> int:
    """The moment at `at` ns of the composition."""
    for start, end in spans:
        if at < end - start:
            return start + at
        at -= end - start
    return spans[-1][1]


@dataclass(slots=True)
class _State:
    """Who is there at a moment, as the live recorder would see it."""

    room: RecordedRoom

    def changes(self) -> list[int]:
        moments = {moment for stay in self.room.people for moment in (stay.start_ns, stay.end_ns)}
        for track in self.room.tracks.values():
            moments |= {track.start_ns, track.end_ns, *(moment for moment, _ in track.muted)}
        return sorted(moments)

    def members(self, ns: int) -> tuple[Member, ...]:
        there = []
        for order, stay in enumerate(self.room.people):
            if stay.start_ns <= ns < stay.end_ns:
                tracks = [
                    track
                    for track in self.room.tracks.values()
                    if track.identity == stay.identity and track.start_ns <= ns < track.end_ns
                ]
                published = tuple(_publication(track, ns) for track in tracks)
                joined = stay.joined_at_ms or order
                there.append(Member(stay.identity, stay.name, stay.kind, joined, publications=published))
        return in_order(there)


def _publication(track: RecordedTrack, ns: int) -> Publication:
    muted = False
    for moment, state in track.muted:
        if moment > ns:
            break
        muted = state
    return Publication(track.sid, track.kind, track.source, track.codec, track.width, track.height, muted)


class _Scene:
    """Composes pictures and mixes sound of one moment after the other, as the live recorder does."""

    def __init__(self, room: RecordedRoom, folder: Path, source: RoomSource, encoding: Encoding) -> None:
        from adapters.compositor.compositor import Compositor

        self._state = _State(room)
        self._changes = self._state.changes()
        self._next_change = 0
        self._members: tuple[Member, ...] = ()
        self._stage = RoomStage(source)
        self._layout = source.layout
        self._show = Show()
        self._order = StageOrder()
        self._voices = SpeakerChoice()
        self._speaking: frozenset[str] = frozenset()
        self._listened = float("-inf")
        self._video = encoding.video
        self._has_sound = encoding.audio is not None
        self._compositor = (
            Compositor(self._video.width, self._video.height, self._video.fps) if self._video else None
        )
        files = {track.sid: (track.kind, track.files) for track in room.tracks.values()}
        self._pictures = {
            sid: PicturePlayer(folder, own)
            for sid, (kind, own) in files.items()
            if kind == "video" and self._video
        }
        # Without sound in the file it still says who speaks.
        self._sounds = {
            sid: SoundPlayer(folder, own) for sid, (kind, own) in files.items() if kind == "audio"
        }
        self._sizes: dict[str, tuple[int, int]] = {}

    def at(self, ns: int, number: int, rate: int) -> tuple[Any | None, NDArray[np.int16] | None]:
        """The picture and the sound of frame `number`, which shows the moment `ns`; None for what is not wanted."""
        seconds = number / rate
        first, end = number * HZ // rate, (number + 1) * HZ // rate
        sound = self._mix(ns, end - first)
        self._listen(seconds)
        if self._is_due(ns):
            self._members = self._state.members(ns)
            self._arrange()
        frame = self._draw(ns, seconds) if self._compositor is not None else None
        return frame, sound if self._has_sound else None

    def close(self) -> None:
        for picture in self._pictures.values():
            picture.close()
        for sound in self._sounds.values():
            sound.close()

    def _is_due(self, ns: int) -> bool:
        passed = bisect.bisect_right(self._changes, ns)
        due, self._next_change = passed != self._next_change, passed
        return due

    def _arrange(self) -> None:
        show = self._stage.show(self._members, self._speaking, self._sizes)
        tracks: tuple[StageTrack, ...] = show.tracks
        if self._video is not None:
            video, speaker = self._video, self._voices.speaker
            tracks = self._order.update(self._layout, tracks, speaker, video.width, video.height)
        self._show = replace(show, tracks=tracks)

    def _draw(self, ns: int, seconds: float) -> Any:
        assert self._compositor is not None
        pictures = self._visible(ns)
        sizes = {sid: (picture.width, picture.height) for sid, picture in pictures.items()}
        if any(self._sizes.get(sid) != size for sid, size in sizes.items()):
            self._sizes.update(sizes)
            self._arrange()
            pictures = self._visible(ns)
        frame, _ = self._compositor.compose(
            self._layout, self._show.tracks, self._voices.speaker, pictures, seconds
        )
        return frame

    def _visible(self, ns: int) -> Mapping[str, Picture]:
        """Only what has a tile is decoded up to this moment; the others catch up when they get one."""
        assert self._video is not None
        video, speaker = self._video, self._voices.speaker
        tiles = arrange(self._layout, self._show.tracks, speaker, video.width, video.height)
        shown = {tile.track_id for tile in tiles}
        found = {}
        for track in self._show.tracks:
            if track.id in shown and track.id in self._pictures and track.source != "avatar":
                picture = self._pictures[track.id].at(ns)
                if picture is not None:
                    found[track.id] = picture
        return found

    def _mix(self, ns: int, count: int) -> NDArray[np.int16]:
        total: NDArray[np.int32] | None = None
        for sid, player in self._sounds.items():
            samples = player.take(ns, count)
            if samples is None or (sid not in self._show.audio and self._has_sound):
                continue
            if total is None:
                total = np.zeros((count, 2), np.int32)
            total += samples
        return np.zeros((count, 2), np.int16) if total is None else bend(total)

    def _listen(self, seconds: float) -> None:
        if seconds - self._listened < _LISTEN_SEC:
            return
        self._listened = seconds
        shown = {track.identity for track in self._show.tracks}
        before = (self._voices.speaker, self._speaking)
        if self._voices.speaker is not None and self._voices.speaker not in shown:
            self._voices.forget(self._voices.speaker)
        levels: dict[str, float] = {}
        for member in self._members:
            for one in member.published("audio"):
                if one.sid in self._sounds and member.identity in shown:
                    level = self._sounds[one.sid].level()
                    levels[member.identity] = max(levels.get(member.identity, 0.0), level)
        self._voices.update(seconds, levels)
        self._speaking = self._voices.speaking(seconds)
        if (self._voices.speaker, self._speaking) != before:
            self._arrange()
