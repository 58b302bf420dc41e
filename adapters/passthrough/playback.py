"""Recorded tracks played back by the wall clock of their room: the picture and the sound of a moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.compositor.picture import Picture, planes_of
from adapters.passthrough.files import AUDIO_CLOCK
from adapters.passthrough.tape import Tape
from adapters.passthrough.timeline import RecordedFile

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]

_NS = 1_000_000_000
# FFmpeg's own decoder of VP9 shows each spatial layer as a picture.
_DECODERS = {"vp9": "libvpx-vp9", "av1": "libdav1d", "opus": "libopus"}


class PicturePlayer:
    """One video track. Moments are ns since 1970 and only grow."""

    def __init__(self, folder: Path, files: Sequence[RecordedFile]) -> None:
        self._frames = _frames(folder, files)
        self._next: tuple[int, Any] | None = None
        self._shown: Any = None
        self._picture: Picture | None = None
        self._version = 0
        self._over = False

    def at(self, ns: int) -> Picture | None:
        """The newest picture of that moment; None before the first."""
        newest = None
        while not self._over:
            if self._next is None:
                self._next = next(self._frames, None)
            if self._next is None:
                self._over = True
            elif self._next[0] <= ns:
                newest, self._next = self._next[1], None
            else:
                break
        if newest is not None:
            self._picture = self._converted(newest)
        return self._picture

    def close(self) -> None:
        self._over = True
        self._frames.close()

    def _converted(self, frame: av.VideoFrame) -> Picture:
        if frame.format.name != "yuv420p":
            frame = frame.reformat(format="yuv420p")
        # The planes are views: the frame must stay as long as they do.
        self._shown = frame
        self._version += 1
        return Picture(frame.width, frame.height, planes_of(frame), self._version)


class SoundPlayer:
    """One audio track, in samples at 48 kHz."""

    def __init__(self, folder: Path, files: Sequence[RecordedFile]) -> None:
        from av.audio.resampler import AudioResampler

        self._frames = _frames(folder, files)
        self._resampler = AudioResampler(format="s16", layout="stereo", rate=AUDIO_CLOCK)
        self._tape = Tape()
        self._reached = 0
        self._over = False

    def take(self, ns: int, count: int) -> Samples | None:
        """`count` samples from that moment on, None where they are silent. Moments only grow."""
        first = ns * AUDIO_CLOCK // _NS
        while not self._over and self._reached < first + count:
            self._read()
        if first != self._tape.taken:
            # A pause that is cut out, or the beginning.
            self._tape.skip(first)
        return self._tape.take(first + count)

    def level(self) -> float:
        """See `Tape.level`."""
        return self._tape.level()

    def close(self) -> None:
        self._over = True
        self._frames.close()

    def _read(self) -> None:
        found = next(self._frames, None)
        if found is None:
            self._over = True
            return
        place = found[0] * AUDIO_CLOCK // _NS
        found[1].pts = None
        for block in self._resampler.resample(found[1]):
            samples = np.asarray(block.to_ndarray(), np.int16).reshape(-1, 2)
            self._tape.put(place, samples)
            place += len(samples)
        self._reached = place


def _frames(folder: Path, files: Sequence[RecordedFile]) -> Any:
    """Decoded frames of all files with the moments at which they were shown or heard."""
    for file in files:
        if file.stretches:
            yield from _frames_of(folder / file.file, file)


def _frames_of(path: Path, file: RecordedFile) -> Iterator[tuple[int, Any]]:
    import av

    try:
        source = av.open(str(path))
    except (av.FFmpegError, OSError):
        # The recorder died before anything whole was in it.
        return
    index = 0
    with source:
        stream = source.streams[0]
        decoder = av.CodecContext.create(_DECODERS.get(file.codec, file.codec), "r")
        decoder.extradata = stream.codec_context.extradata
        decoder.thread_count = 1
        for frame in _decoded(source, decoder):
            if frame.pts is None:
                continue
            position = int(frame.pts * stream.time_base * _NS)
            stretches = file.stretches
            # Half a millisecond: WebM rounds to whole ones.
            while index + 1 < len(stretches) and stretches[index + 1].position <= position + 500_000:
                index += 1
            yield stretches[index].at_ns + position - stretches[index].position, frame


def _decoded(source: Any, decoder: Any) -> Iterator[Any]:
    import av

    packets = source.demux(0)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            # Torn at the end.
            packet = None
        try:
            yield from decoder.decode(packet if packet is not None and packet.size else None)
        except (av.FFmpegError, EOFError):
            # One that lacks what it refers to; the next key frame mends it.
            pass
        if packet is None or not packet.size:
            return
