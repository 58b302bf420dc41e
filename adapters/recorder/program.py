"""A program: pictures and sound encoded once, written to file, segments and images, and streamed to many places."""

from __future__ import annotations

import functools
import json
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.recorder.encoders import SAMPLE_RATE, Encoded, Encoders, Interleaver, KeyFrames
from adapters.recorder.outputs.dial import dialer
from adapters.recorder.outputs.images import Images
from adapters.recorder.outputs.part_file import PartFile
from adapters.recorder.outputs.segments import Segments
from adapters.recorder.outputs.streams import Streams
from adapters.recorder.outputs.tcp import Resolve, resolve_anything
from adapters.recorder.outputs.writer import Writer
from server.domain.egress import Destination
from server.ports.recorder import FromRecorder, Measured, RecorderPlan

if TYPE_CHECKING:
    import av
    import numpy as np

_MAX_VBV_SEC = 10.0
_DEFAULT_VBV_SEC = 2.0
_NS = 1_000_000_000


class Program:
    """Used by one thread. `report` is called from others as well.

    `started_at` is the moment of time 0 in ns since 1970: set it before the first picture or sound, and move it on by
    what a pause cuts out. `resolve` decides which addresses streams may connect to; `tls` is used for RTMPS and WSS.
    """

    def __init__(
        self,
        plan: RecorderPlan,
        report: Callable[[FromRecorder], None],
        *,
        resolve: Resolve = resolve_anything,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        video, audio = plan.encoding.video, plan.encoding.audio
        self.started_at = time.time_ns()
        self._fps = video.fps if video is not None else 0
        keys = (
            KeyFrames.planned(video, segment_sec=plan.segment_sec, streams=bool(plan.streams))
            if video is not None
            else KeyFrames(())
        )
        vbv = min(float(plan.segment_sec), _MAX_VBV_SEC) if plan.segment_sec else _DEFAULT_VBV_SEC
        # Images alone need no encoder.
        encodes = bool(plan.container or plan.segment_sec or plan.streams)
        self._encoders = Encoders(
            video if encodes else None, audio if encodes else None, keys=keys, vbv_sec=vbv
        )
        present = {"video": self._encoders.video, "audio": self._encoders.audio}
        self._medias = [media for media, stream in present.items() if stream is not None]
        self._interleaver = Interleaver(self._medias)
        self._images = self._open_images(plan, report)
        self._writer = self._open_writer(plan, report)
        self._streams = Streams(
            dialer(plan.streams, self._encoders, resolve=resolve, tls=tls),
            report=report,
            begins_at_key=video is not None,
            retries=plan.streams != "websocket",
        )
        self._raw = audio is not None and audio.codec == "pcm"
        self._frames = 0
        self._samples = 0
        self._last_key = 0
        self.set_destinations(plan.destinations)

    def video(self, frame: av.VideoFrame, number: int) -> None:
        """Frame `number` (from 0, without gaps) at the plan's rate. Raise OSError when the disk refuses."""
        if number != self._frames:
            raise ValueError(f"picture {number} follows {self._frames - 1}")
        self._frames += 1
        if self._images is not None and self._writer is not None:
            # When it was due: it may have been composed later.
            for still in self._images.take(frame, number, self.started_at + number * _NS // self._fps):
                self._writer.put(still)
        if self._encoders.video is None:
            return
        # At most one a second: a destination that comes and goes must not cost the others their quality.
        key = number - self._last_key >= self._fps and self._streams.take_key_request()
        if key:
            self._last_key = number
        self._spread(self._encoders.encode_video(frame, number, key=key))

    def audio(self, samples: np.ndarray[Any, Any]) -> None:
        """int16 of shape (n, 2) at 48 kHz, continuous from time 0. Raise OSError when the disk refuses."""
        if self._encoders.audio is not None:
            self._spread(self._encoders.encode_audio(samples))
        if self._raw:
            self._streams.put(self._plain("audio", samples.astype("<i2", copy=False).tobytes(), len(samples)))
        self._samples += len(samples)

    def set_muted(self, *, muted: bool) -> None:
        """Tells websockets that the sound's source fell silent or is back."""
        if self._raw:
            self._streams.put(
                self._plain("text", json.dumps({"muted": muted}, separators=(",", ":")).encode(), 0)
            )

    def set_destinations(self, destinations: Sequence[Destination]) -> None:
        """The full set that is wanted from now on; new ones begin at a key frame that is made for them."""
        self._streams.want(destinations)

    def finish(self) -> Measured:
        """Drains, ends the streams, closes. Files are whole and synced. Raise OSError when the disk refuses."""
        for media in self._medias:
            self._spread(self._encoders.flush(media))
        self._pass_on(self._interleaver.flush())
        try:
            if self._writer is not None:
                # Before streams, which may take seconds: when the worker has died, another reads these files soon.
                self._writer.close()
        finally:
            self._streams.close()
        return Measured(self.duration_ms, composed=self._frames, bytes=self.bytes_written)

    @property
    def duration_ms(self) -> int:
        pictures = self._frames * 1000 // self._fps if self._fps else 0
        return max(pictures, self._samples * 1000 // SAMPLE_RATE)

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written if self._writer is not None else 0

    @property
    def backlog(self) -> int:
        """Packets that wait for the disk."""
        return self._writer.backlog if self._writer is not None else 0

    @property
    def running_streams(self) -> int:
        """Destinations that have not failed."""
        return self._streams.running

    def _plain(self, media: str, data: bytes, samples: int) -> Encoded:
        at = self._samples
        return Encoded(media, data, at, at, samples, key=True, time_base=Fraction(1, SAMPLE_RATE))

    def _spread(self, packets: Iterable[Encoded]) -> None:
        for packet in packets:
            self._pass_on(self._interleaver.push(packet))

    def _pass_on(self, packets: Iterable[Encoded]) -> None:
        for packet in packets:
            if self._writer is not None:
                self._writer.put(packet)
            self._streams.put(packet)

    def _open_images(self, plan: RecorderPlan, report: Callable[[FromRecorder], None]) -> Images | None:
        if not plan.images or not self._fps:
            return None
        return Images(
            Path(plan.folder),
            plan.part,
            plan.images,
            fps=self._fps,
            first=plan.first_image,
            report=report,
        )

    def _open_writer(self, plan: RecorderPlan, report: Callable[[FromRecorder], None]) -> Writer | None:
        folder = Path(plan.folder)
        part = PartFile(folder, plan.part, plan.container, self._encoders) if plan.container else None
        segments = (
            Segments(
                folder,
                plan.part,
                self._encoders,
                segment_sec=plan.segment_sec,
                report=report,
                started_at=functools.partial(getattr, self, "started_at"),
            )
            if plan.segment_sec
            else None
        )
        if part is None and segments is None and self._images is None:
            return None
        return Writer(part, segments, self._images)
