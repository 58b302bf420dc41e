"""HLS segments: one MPEG-TS file from each planned key frame to the next, told of when it is whole.

The open one is on disk up to a second ago. Only what is told of counts as whole; whoever finds another after a death
uses it as far as it goes (`server.egress.segments.adopt_segments`).
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from adapters.recorder.encoders import Encoded, Encoders, add_streams, packet_for
from adapters.recorder.outputs.part_file import SYNC_SEC
from server.ports.recorder import SegmentWritten

_PACKET = 188
# Players want no timestamp near 0: sound begins before it, and the clock reference runs ahead of both.
_START = Fraction(10)


class Segments:
    """Called from the writer's thread. A segment begins with the first key frame (or sound) after `segment_sec` of the last.

    Raise OSError when the disk refuses: the open segment then ends where it does.
    """

    def __init__(
        self,
        folder: Path,
        part: int,
        encoders: Encoders,
        *,
        segment_sec: int,
        report: Callable[[SegmentWritten], None],
        started_at: Callable[[], int],
    ) -> None:
        self._lock = _Lock(folder / f"seg-{part:03d}.lock")
        self._folder = folder
        self._part = part
        self._encoders = encoders
        self._length = Fraction(segment_sec)
        self._report = report
        self._started_at = started_at
        self._number = 0
        self._begin = Fraction(0)
        self._end = Fraction(0)
        self._buffer = io.BytesIO()
        self._muxer: Any = None
        self._streams: dict[str, Any] = {}
        self._counters = _Counters()
        self._cut_by = "video" if encoders.video is not None else "audio"
        self._saved_at = 0.0
        self.bytes_written = 0

    def write(self, packet: Encoded) -> None:
        start = packet.pts * packet.time_base
        if packet.media == self._cut_by:
            if packet.key and start >= self._begin + self._length:
                self._cut(start)
            self._end = max(self._end, start + packet.duration * packet.time_base)
        if self._muxer is None:
            self._open()
        self._muxer.mux_one(packet_for(self._streams[packet.media], packet, _START))
        if time.monotonic() - self._saved_at >= SYNC_SEC:
            self._save()

    def close(self) -> None:
        try:
            if self._muxer is not None:
                self._cut(self._end)
        finally:
            self._lock.release()

    def _open(self) -> None:
        import av

        self._muxer = av.open(
            self._buffer,
            "w",
            format="mpegts",
            options={
                "mpegts_copyts": "1",
                "mpegts_flags": "initial_discontinuity" if not self._number else "0",
            },
            # Nothing is held back but sound that shares a packet: what is saved ends with a whole one.
            container_options={"avoid_negative_ts": "disabled", "max_delay": "700000", "flush_packets": "1"},
        )
        self._streams = add_streams(self._muxer, self._encoders)
        self._saved_at = time.monotonic()

    def _cut(self, at: Fraction) -> None:
        """Ends the open segment at `at` seconds."""
        if self._muxer is None:
            return
        self._muxer.close()
        self._save()
        self._muxer = None
        self._counters.begin_segment()
        self._report(
            SegmentWritten(
                self._name,
                self._number,
                float(at - self._begin),
                self._started_at() + int(self._begin * 1_000_000_000),
            )
        )
        self._number += 1
        self._begin = at

    @property
    def _name(self) -> str:
        return f"seg-{self._part:03d}-{self._number:05d}.ts"

    def _save(self) -> None:
        """Appends what was muxed since the last time."""
        data = self._counters.continued(self._buffer.getvalue())
        self._buffer.seek(0)
        self._buffer.truncate()
        try:
            _append(self._folder / self._name, data)
        except OSError:
            # What the disk did not take is missing: it must be neither gone on with nor told of.
            self._muxer = None
            raise
        self.bytes_written += len(data)
        self._saved_at = time.monotonic()


def are_open() -> bool:
    """Whether this process may still write segments. From any thread."""
    return bool(_Lock.held)


class _Lock:
    """Tells other processes that segments of this part may still be written; it ends with this one at the latest."""

    held: ClassVar[set[Path]] = set()

    def __init__(self, path: Path) -> None:
        self.held.add(path)
        self._path = path
        self._file = path.open("wb")
        # Where the file system has no locks, whoever goes on cannot wait, and takes what is there.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()
        self.held.discard(self._path)


class _Counters:
    """Continuity counters that go on from one segment to the next, per PID, though each has a muxer of its own."""

    def __init__(self) -> None:
        self._shifts: dict[int, int] = {}
        self._firsts: dict[int, int] = {}
        self._lasts: dict[int, int] = {}

    def continued(self, data: bytes) -> bytes:
        """The next packets of the segment."""
        import numpy as np

        packets = np.frombuffer(data, np.uint8).reshape(-1, _PACKET).copy()
        pids = ((packets[:, 1] & 0x1F).astype(np.int32) << 8) | packets[:, 2]
        for pid in np.unique(pids).tolist():
            own = pids == pid
            counters = packets[own, 3]
            moved = (counters + self._shifts.get(pid, 0)) & 0x0F
            packets[own, 3] = (counters & 0xF0) | moved
            self._firsts.setdefault(pid, int(counters[0] & 0x0F))
            self._lasts[pid] = int(moved[-1])
        return packets.tobytes()

    def begin_segment(self) -> None:
        for pid, first in self._firsts.items():
            self._shifts[pid] = (self._lasts[pid] + 1 - first) & 0x0F
        self._firsts.clear()


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
