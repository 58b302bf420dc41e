"""Every track of a room into files of their own, with a timeline from which any composition can be made later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.passthrough.files import CONTAINERS
from adapters.passthrough.listener import Participant, Track
from adapters.passthrough.media import Frame
from adapters.passthrough.one_track import codec_name
from adapters.passthrough.stream import Stream
from adapters.passthrough.timeline import TimelineWriter
from adapters.passthrough.writing import NS, CodecChanged, Stretch, TrackWriter
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    FromRecorder,
    Joined,
    Measured,
    NewOrders,
    RecorderPlan,
    TrackSeen,
)

if TYPE_CHECKING:
    from adapters.passthrough.room import Room


@dataclass(slots=True)
class _Open:
    """The file that a track is written to. `noted` sender reports of its newest stretch are in the timeline."""

    stream: Stream
    writer: TrackWriter
    seen: TrackSeen
    noted: int = 0
    size: tuple[int, int] = (0, 0)


class AllTracks:
    """Implements `Recording`; see `record_tracks`."""

    def __init__(
        self,
        plan: RecorderPlan,
        report: Callable[[FromRecorder], None],
        outcome: asyncio.Future[Ended | Broke],
    ) -> None:
        self._plan = plan
        self._report = report
        self.outcome = outcome
        self._folder = Path(plan.folder)
        self._room: Room | None = None
        self._timeline = TimelineWriter(self._folder / f"timeline-{plan.part:03d}.json")
        self._tracks: dict[str, Track] = {}
        self._numbers: dict[str, int] = {}
        self._open: dict[str, _Open] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._done = Measured(0)
        self._started_ns = 0
        self._interrupted_ns = 0
        self._gaps: list[tuple[int, int]] = []
        self._paused = plan.paused
        self._finished = False
        if plan.paused:
            self._timeline.add("paused", time.time_ns())

    def attach(self, room: Room) -> None:
        self._room = room

    # --- Listener

    def joined(self, room_id: str, at_ns: int) -> None:
        self._timeline.add("joined", at_ns, room=room_id)
        if self._interrupted_ns:
            self._gaps.append((self._interrupted_ns, at_ns))
            self._interrupted_ns = 0
        else:
            self._report(Joined(room_id=room_id))

    def interrupted(self, at_ns: int) -> None:
        self._interrupted_ns = at_ns
        self._timeline.add("interrupted", at_ns)

    def arrived(self, participant: Participant, at_ns: int) -> None:
        facts = {"identity": participant.identity, "name": participant.name, "kind": participant.kind}
        self._timeline.add("arrived", at_ns, joined_at_ms=participant.joined_at_ms, **facts)

    def left(self, participant: Participant, at_ns: int) -> None:
        self._timeline.add("left", at_ns, identity=participant.identity)

    def published(self, track: Track, at_ns: int) -> bool:
        if codec_name(track) not in CONTAINERS:
            return False
        if track.sid not in self._tracks:
            facts = {
                name: getattr(track, name)
                for name in ("sid", "identity", "name", "kind", "source", "width", "height", "muted")
            }
            self._timeline.add("published", at_ns, codec=codec_name(track), **facts)
        self._tracks[track.sid] = track
        return True

    def changed(self, track: Track, at_ns: int) -> None:
        if track.sid in self._tracks:
            self._tracks[track.sid] = track
            facts = {name: getattr(track, name) for name in ("sid", "width", "height", "muted")}
            self._timeline.add("changed", at_ns, **facts)

    def unpublished(self, track: Track, at_ns: int) -> None:
        if self._tracks.pop(track.sid, None) is not None:
            self._timeline.add("unpublished", at_ns, sid=track.sid)
            self._let_go(track.sid)

    def speaking(self, levels: Mapping[str, float], at_ns: int) -> None:
        self._timeline.add("speaking", at_ns, levels=levels)

    def frame(self, stream: Stream, frame: Frame) -> None:
        if self._finished or self._paused or stream.track_id not in self._tracks:
            return
        sid = stream.track_id
        current = self._open.get(sid)
        if current is None or current.stream is not stream:
            current = self._begin(sid, stream)
        try:
            written = self._write(current, frame)
        except CodecChanged:
            current = self._begin(sid, stream)
            written = self._write(current, frame)
        if written and (frame.width, frame.height) not in ((0, 0), current.size):
            self._note_size(current, frame)

    # --- Recording

    def order(self, orders: NewOrders) -> None:
        now = time.time_ns()
        if orders.paused and not self._paused:
            self._timeline.add("paused", now)
        elif self._paused and not orders.paused:
            self._timeline.add("resumed", now)
            for sid in self._tracks:
                # Files start anew after a pause: theirs is the simplest of timelines then.
                self._let_go(sid)
                if self._room is not None:
                    self._room.want_key(sid)
        self._paused = orders.paused

    def tick(self) -> None:
        for current in self._open.values():
            self._note_clock(current)

    def measured(self) -> Measured:
        writers = [current.writer for current in self._open.values()]
        end = time.time_ns()
        gaps: tuple[Mapping[str, int | str], ...] = tuple(
            {
                "startMs": max(0, start - self._started_ns) // 1_000_000,
                "durationMs": (stop - start) // 1_000_000,
                "reason": "CONNECTION_LOST",
            }
            for start, stop in self._gaps
        )
        return Measured(
            duration_ms=(end - self._started_ns) // 1_000_000 if self._started_ns else 0,
            composed=self._done.composed + sum(writer.frames for writer in writers),
            dropped=self._done.dropped + sum(current.stream.lost for current in self._open.values()),
            bytes=self._done.bytes + sum(writer.size for writer in writers),
            gaps=gaps,
        )

    def dirty(self) -> list[int]:
        files = [one.writer.file for one in self._open.values() if one.writer.file]
        found = [self._timeline.synced(), *(file.synced() for file in files)]
        return [descriptor for descriptor in found if descriptor is not None]

    def finish(self, at_ns: int) -> bool:
        self._finished = True
        for current in self._open.values():
            current.writer.finish()
        return bool(self._started_ns)

    async def close(self) -> None:
        await asyncio.gather(*self._closing)
        for current in list(self._open.values()):
            self._note_end(current)
        self._open.clear()
        self._timeline.add("end", time.time_ns())
        self._timeline.close()

    # --- inside

    def _begin(self, sid: str, stream: Stream) -> _Open:
        self._let_go(sid)
        number = self._numbers.get(sid, 0)
        self._numbers[sid] = number + 1
        track = self._tracks[sid]
        stem = self._folder / f"track-{self._plan.part:03d}-{sid}-{number}"
        writer = TrackWriter(stem, (track.width, track.height), self._note_stretch)
        seen = TrackSeen(sid, track.identity, track.kind, "", 0)
        self._open[sid] = _Open(stream, writer, seen)
        return self._open[sid]

    def _write(self, current: _Open, frame: Frame) -> bool:
        first = current.writer.file is None
        written = current.writer.write(current.stream, frame)
        if first and written:
            self._note_file(current, frame)
        return written

    def _note_file(self, current: _Open, frame: Frame) -> None:
        if not self._started_ns:
            self._started_ns = frame.arrival_ns
            self._report(Active(frame.arrival_ns))
        writer = current.writer
        assert writer.file is not None
        start_ms = (frame.arrival_ns - self._started_ns) // 1_000_000
        current.seen = replace(
            current.seen, codec=writer.codec, start_ms=start_ms, file=writer.file.path.name
        )
        self._report(current.seen)

    def _note_stretch(self, writer: TrackWriter, stretch: Stretch) -> None:
        assert writer.file is not None
        current = next(one for one in self._open.values() if one.writer is writer)
        name = writer.file.path.name
        if len(writer.stretches) == 1:
            facts = {"file": name, "sid": current.stream.track_id, "codec": writer.codec}
            self._timeline.add("file", stretch.at_ns, **facts)
        current.noted = 0
        position = stretch.position * NS // writer.file.clock
        self._timeline.add("stretch", stretch.at_ns, file=name, position=position)

    def _note_size(self, current: _Open, frame: Frame) -> None:
        assert current.writer.file is not None
        current.size = (frame.width, frame.height)
        facts = {"file": current.writer.file.path.name, "width": frame.width, "height": frame.height}
        self._timeline.add("size", frame.arrival_ns, **facts)

    def _note_clock(self, current: _Open) -> None:
        writer = current.writer
        writer.read_clock()
        if writer.file is None or not writer.stretches:
            return
        readings = writer.stretches[-1].readings
        for position, ns in readings[current.noted :]:
            facts = {"file": writer.file.path.name, "position": position * NS // writer.file.clock}
            self._timeline.add("clock", ns, **facts)
        current.noted = len(readings)

    def _note_end(self, current: _Open) -> None:
        writer = current.writer
        if writer.file is None:
            return
        self._note_clock(current)
        facts = {"file": writer.file.path.name, "duration": writer.duration_ns, "frames": writer.frames}
        self._timeline.add("file_end", time.time_ns(), lost=current.stream.lost, **facts)
        self._report(replace(current.seen, end_ms=current.seen.start_ms + writer.duration_ns // 1_000_000))
        done = self._done
        self._done = replace(
            done,
            composed=done.composed + writer.frames,
            dropped=done.dropped + current.stream.lost,
            bytes=done.bytes + writer.size,
        )

    def _let_go(self, sid: str) -> None:
        """Closes the file that a track is written to; the disk may take its time."""
        current = self._open.pop(sid, None)
        if current is None:
            return
        self._note_end(current)
        task = asyncio.create_task(asyncio.to_thread(current.writer.finish))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
