"""One track of a room into one file, or as sound to websockets, as LiveKit's track egress does it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.passthrough.files import CONTAINERS
from adapters.passthrough.listener import Participant, Track
from adapters.passthrough.media import Frame
from adapters.passthrough.stream import Stream
from adapters.passthrough.writing import CodecChanged, TrackWriter
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
    from adapters.passthrough.sound_stream import SoundStream

WAIT_SEC = 30.0


class OneTrack:
    """Implements `Recording`; see `record_tracks`."""

    def __init__(
        self,
        plan: RecorderPlan,
        track_id: str,
        report: Callable[[FromRecorder], None],
        outcome: asyncio.Future[Ended | Broke],
    ) -> None:
        self._plan = plan
        self._id = track_id
        self._report = report
        self.outcome = outcome
        self._room: Room | None = None
        self._room_id = ""
        self._track: Track | None = None
        self._writer: TrackWriter | None = None
        self._paused = plan.paused
        self._paused_at = time.time_ns() if plan.paused else 0
        self._lost = 0
        self._clock_known = False
        self._sound = _sound(plan, report)
        self._stream: Stream | None = None
        self._finished = False
        loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = loop.call_later(WAIT_SEC, self._missed)

    def attach(self, room: Room) -> None:
        self._room = room

    # --- Listener

    def joined(self, room_id: str, at_ns: int) -> None:
        again, self._room_id = bool(self._room_id), room_id
        if self._track is not None:
            if not again:
                self._introduce(self._track)
        elif again and self._waiting is None:
            self._end(Ended("source_closed", at_ns))

    def interrupted(self, at_ns: int) -> None:
        """What is missing shows in the file's own clock."""

    def arrived(self, participant: Participant, at_ns: int) -> None: ...
    def left(self, participant: Participant, at_ns: int) -> None: ...
    def speaking(self, levels: Mapping[str, float], at_ns: int) -> None: ...

    def published(self, track: Track, at_ns: int) -> bool:
        if track.sid != self._id:
            return False
        first, self._track = self._track is None, track
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        refusal = _refusal(track, self._plan)
        if refusal is not None:
            self._end(refusal)
            return False
        if first and self._room_id:
            self._introduce(track)
        return True

    def changed(self, track: Track, at_ns: int) -> None:
        if track.sid == self._id:
            self._track = track
            if self._sound is not None:
                self._sound.mute(track.muted)

    def unpublished(self, track: Track, at_ns: int) -> None:
        if track.sid == self._id:
            self._end(Ended("source_closed", at_ns))

    def frame(self, stream: Stream, frame: Frame) -> None:
        if self._finished or self._writer is None or stream.track_id != self._id:
            return
        if self._sound is not None:
            self._sound.frame(stream, frame)
            return
        if stream is not self._stream:
            self._lost += self._stream.lost if self._stream else 0
            self._stream = stream
        if self._paused:
            return
        first = self._writer.file is None
        try:
            written = self._writer.write(stream, frame)
        except CodecChanged:
            # One file holds one codec: what follows is another recording.
            self._end(Ended("source_closed", frame.arrival_ns))
            return
        if first and written:
            self._begin(frame.arrival_ns)

    # --- Recording

    def order(self, orders: NewOrders) -> None:
        if orders.paused and not self._paused:
            self._paused_at = time.time_ns()
        elif self._paused and not orders.paused:
            if self._paused == "cut" and self._writer is not None and self._writer.file is not None:
                self._writer.cut(time.time_ns() - self._paused_at)
            if self._room is not None:
                self._room.want_key(self._id)
        self._paused = orders.paused
        if self._sound is not None:
            self._sound.paused = bool(orders.paused)
            self._sound.want(orders.destinations)

    def tick(self) -> None:
        if self._sound is not None and self._sound.over:
            self._end(Ended(self._sound.over, time.time_ns()))
        writer = self._writer
        if writer is None or writer.file is None:
            return
        writer.read_clock()
        if not self._clock_known and writer.stretches[0].readings:
            self._clock_known = True
            self._write_facts(writer)

    def measured(self) -> Measured:
        writer = self._writer
        if self._sound is not None and self._writer is not None:
            return Measured(self._sound.duration_ms, composed=self._sound.sent, bytes=self._sound.sent * 4)
        if writer is None or writer.file is None:
            return Measured(0)
        clock = writer.file.clock
        gaps: tuple[Mapping[str, int | str], ...] = tuple(
            {
                "startMs": start * 1000 // clock,
                "durationMs": (end - start) * 1000 // clock,
                "reason": "CONNECTION_LOST",
            }
            for start, end in writer.gaps
        )
        return Measured(
            duration_ms=writer.duration_ns // 1_000_000,
            composed=writer.frames,
            dropped=self._lost + (self._stream.lost if self._stream else 0),
            bytes=writer.size,
            gaps=gaps,
        )

    def dirty(self) -> list[int]:
        file = self._writer.file if self._writer else None
        descriptor = file.synced() if file else None
        return [] if descriptor is None else [descriptor]

    def finish(self, at_ns: int) -> bool:
        self._finished = True
        if self._waiting is not None:
            self._waiting.cancel()
        writer = self._writer
        if self._sound is not None:
            return bool(self._sound.sent)
        if writer is None or writer.file is None:
            return False
        writer.finish(self._paused_at if self._paused else at_ns)
        self._write_facts(writer)
        return True

    async def close(self) -> None:
        if self._sound is not None:
            await self._sound.close()
        writer = self._writer
        if writer is not None and writer.file is not None:
            self._seen(writer, writer.duration_ns // 1_000_000)

    # --- inside

    def _introduce(self, track: Track) -> None:
        if self._writer is None:
            folder = Path(self._plan.folder)
            size = (track.width, track.height)
            self._writer = TrackWriter(folder / f"part-{self._plan.part:03d}", size)
        self._report(
            Joined(
                room_id=self._room_id,
                publisher_identity=track.identity,
                track_id=track.sid,
                track_kind=track.kind,
                track_source=track.source,
                container="" if self._sound else CONTAINERS[codec_name(track)],
            )
        )
        if self._sound is not None and not self._sound.started:
            self._sound.mute(track.muted)
            self._sound.start()
            self._report(Active(time.time_ns()))

    def _begin(self, at_ns: int) -> None:
        assert self._writer is not None
        self._write_facts(self._writer)
        self._report(Active(at_ns))
        self._seen(self._writer, None)

    def _seen(self, writer: TrackWriter, end_ms: int | None) -> None:
        assert self._track is not None
        assert writer.file is not None
        self._report(
            TrackSeen(
                sid=self._id,
                identity=self._track.identity,
                media=self._track.kind,
                codec=writer.codec,
                start_ms=0,
                end_ms=end_ms,
                file=writer.file.path.name,
            )
        )

    def _write_facts(self, writer: TrackWriter) -> None:
        """`startedAt` by the arrival of the first frame, `commonStartedAt` by the clock that all tracks share."""
        assert writer.file is not None
        facts = {"startedAt": writer.started_ns}
        common = writer.stretches[0].common_ns(writer.file.clock)
        if common is not None:
            facts["commonStartedAt"] = common
        path = writer.file.path.with_suffix(".json")
        whole = path.with_suffix(".json.new")
        whole.write_text(json.dumps(facts))
        whole.replace(path)

    def _missed(self) -> None:
        if self._plan.part:
            # Earlier parts hold it; it went while nobody was listening.
            self._end(Ended("source_closed", time.time_ns(), media=False))
        else:
            self._end(Broke("EGRESS_FAILED", f"track {self._id} not found", 404))

    def _end(self, how: Ended | Broke) -> None:
        if not self.outcome.done():
            self.outcome.set_result(how)


def codec_name(track: Track) -> str:
    """`h264` of `video/h264`; redundant audio comes to us as Opus."""
    name = track.codec.rpartition("/")[2]
    return "opus" if name == "red" else name


def _sound(plan: RecorderPlan, report: Callable[[FromRecorder], None]) -> SoundStream | None:
    if plan.streams != "websocket":
        return None
    from adapters.passthrough.sound_stream import SoundStream
    from adapters.recorder.streaming import stream_resolver

    resolve = stream_resolver(allow_private=plan.allow_private_urls)
    return SoundStream(plan, report, resolve=resolve)


def _refusal(track: Track, plan: RecorderPlan) -> Broke | None:
    """The words are LiveKit's (livekit-surface section 4.3)."""
    if plan.streams == "websocket" and track.kind == "video":
        return Broke("EGRESS_FAILED", f"format websocket incompatible with codec {track.codec}", 400)
    if codec_name(track) not in CONTAINERS:
        return Broke("EGRESS_FAILED", f"{track.codec} is not yet supported", 400)
    return None
