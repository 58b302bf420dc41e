"""One track into one file, across renewed connections, pauses and jumps of its clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from adapters.passthrough.files import CONTAINERS, TrackFile, open_file
from adapters.passthrough.media import Frame
from adapters.passthrough.stream import Stream

NS = 1_000_000_000
# A clock has jumped that runs so far ahead of its frames, or behind them; packets that were sent again come late.
_AHEAD_SEC = 2.0
_BEHIND_SEC = 10.0
_BACK_SEC = 1.0


@dataclass(slots=True)
class Stretch:
    """From `position` of the file (codec's clock) on, time runs on evenly. `at_ns` since 1970: the arrival of its frame.

    `readings` are (position, ns since 1970) by the server's sender reports, the clock that all tracks share.
    """

    position: int
    timestamp: int
    at_ns: int
    readings: list[tuple[int, int]] = field(default_factory=list)

    def common_ns(self, clock: int) -> int | None:
        """When its `position` was by the common clock; None before the first report. Single reports jump by some ms."""
        if not self.readings:
            return None
        return int(median(ns - (position - self.position) * NS // clock for position, ns in self.readings))


class TrackWriter:
    """`stem` is the file's path without its suffix. `on_stretch` hears of each new stretch once its frame is written."""

    def __init__(
        self,
        stem: Path,
        size: tuple[int, int],
        on_stretch: Callable[[TrackWriter, Stretch], None] | None = None,
    ) -> None:
        self._stem = stem
        self._size = size
        self._on_stretch = on_stretch
        self._stream: Stream | None = None
        self._seen_readings = 0
        self._paused_ns = 0
        self.file: TrackFile | None = None
        self.codec = ""
        self.stretches: list[Stretch] = []
        self.frames = 0
        self.gaps: list[tuple[int, int]] = []

    @property
    def started_ns(self) -> int:
        """When the first frame arrived; 0 before."""
        return self.stretches[0].at_ns if self.stretches else 0

    @property
    def size(self) -> int:
        return self.file.size if self.file else 0

    @property
    def duration_ns(self) -> int:
        return self.file.position * NS // self.file.clock if self.file else 0

    def write(self, stream: Stream, frame: Frame) -> bool:
        """False when the frame did not go into the file. Raise CodecChanged when it can't go into this one."""
        assert stream.codec is not None
        if self.file is None:
            if not self._open(stream.codec.name, frame):
                return False
        elif stream.codec.name != self.codec:
            raise CodecChanged(stream.codec.name)
        position = self._position(stream, frame)
        assert self.file is not None
        if not self.file.write(frame, position):
            return False
        self.frames += 1
        self._read_clock(stream)
        return True

    def read_clock(self) -> None:
        """Takes over the sender reports that came since."""
        if self._stream is not None:
            self._read_clock(self._stream)

    def cut(self, paused_ns: int) -> None:
        """Time that the file shall know nothing of has passed."""
        self._paused_ns += paused_ns
        self._stream = None

    def finish(self, at_ns: int = 0) -> None:
        """Closes the file; with `at_ns` sound lasts until then, as silence if need be."""
        if self.file is None:
            return
        if at_ns:
            self.file.pad(self._by_arrival(at_ns))
        self.file.finish()

    def _open(self, codec: str, frame: Frame) -> bool:
        path = self._stem.with_name(f"{self._stem.name}.{CONTAINERS[codec]}")
        size = (frame.width, frame.height) if frame.width else self._size
        try:
            self.file = open_file(path, codec, frame, size)
        except (ValueError, OSError, IndexError):
            # A key frame that says nothing of its format; the next one will do.
            path.unlink(missing_ok=True)
            return False
        self.codec = codec
        return True

    def _position(self, stream: Stream, frame: Frame) -> int:
        assert self.file is not None
        clock = self.file.clock
        if stream is self._stream:
            stretch = self.stretches[-1]
            position = stretch.position + frame.timestamp - stretch.timestamp
            ahead = (position - self._by_arrival(frame.arrival_ns)) / clock
            back = (self.file.position - position) / clock
            if -_BEHIND_SEC < ahead < _AHEAD_SEC and back < _BACK_SEC:
                return position
        position = max(self._by_arrival(frame.arrival_ns), self.file.position) if self.stretches else 0
        if self.stretches and stream is not self._stream:
            self.gaps.append((self.file.position, position))
        if stream is not self._stream:
            self._stream, self._seen_readings = stream, 0
        stretch = Stretch(position, frame.timestamp, frame.arrival_ns)
        self.stretches.append(stretch)
        if self._on_stretch is not None:
            self._on_stretch(self, stretch)
        return position

    def _by_arrival(self, at_ns: int) -> int:
        assert self.file is not None
        return (at_ns - self.started_ns - self._paused_ns) * self.file.clock // NS

    def _read_clock(self, stream: Stream) -> None:
        if not self.stretches:
            return
        stretch = self.stretches[-1]
        for reading in stream.readings[self._seen_readings :]:
            stretch.readings.append(
                (stretch.position + reading.timestamp - stretch.timestamp, reading.ntp_ns)
            )
        self._seen_readings = len(stream.readings)


class CodecChanged(Exception):
    """The track goes on in another codec, which needs another file."""
