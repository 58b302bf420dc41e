"""HLS segments: one MPEG-TS file from each planned key frame to the next, whole before it is told of."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from adapters.recorder.encoders import Encoded, Encoders, add_streams, packet_for
from server.ports.recorder import SegmentWritten

_PACKET = 188
# Players want no timestamp near 0: sound begins before it, and the clock reference runs ahead of both.
_START = Fraction(10)


class Segments:
    """Called from the writer's thread. `cuts` tells at which picture (by number) a segment may begin."""

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
        self._counters: dict[int, int] = {}
        self._cut_by = "video" if encoders.video is not None else "audio"
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

    def close(self) -> None:
        if self._muxer is not None:
            self._cut(self._end)

    def _open(self) -> None:
        import av

        self._buffer = io.BytesIO()
        self._muxer = av.open(
            self._buffer,
            "w",
            format="mpegts",
            options={
                "mpegts_copyts": "1",
                "mpegts_flags": "initial_discontinuity" if not self._number else "0",
            },
            container_options={"avoid_negative_ts": "disabled", "max_delay": "700000"},
        )
        self._streams = add_streams(self._muxer, self._encoders)

    def _cut(self, at: Fraction) -> None:
        """Ends the open segment at `at` seconds."""
        if self._muxer is None:
            return
        self._muxer.close()
        self._muxer = None
        data = self._continued(self._buffer.getvalue())
        name = f"seg-{self._part:03d}-{self._number:05d}.ts"
        _write_whole(self._folder / name, data)
        self.bytes_written += len(data)
        self._report(
            SegmentWritten(
                name,
                self._number,
                float(at - self._begin),
                self._started_at() + int(self._begin * 1_000_000_000),
            )
        )
        self._number += 1
        self._begin = at

    def _continued(self, data: bytes) -> bytes:
        """The packets with continuity counters that go on where the last segment's ended, per PID."""
        import numpy as np

        packets = np.frombuffer(data, np.uint8).reshape(-1, _PACKET).copy()
        pids = ((packets[:, 1] & 0x1F).astype(np.int32) << 8) | packets[:, 2]
        for pid in np.unique(pids).tolist():
            own = pids == pid
            counters = packets[own, 3]
            moved = (counters + self._counters.get(pid, 0)) & 0x0F
            packets[own, 3] = (counters & 0xF0) | moved
            self._counters[pid] = (int(moved[-1]) + 1 - int(counters[0] & 0x0F)) & 0x0F
        return packets.tobytes()


def _write_whole(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
