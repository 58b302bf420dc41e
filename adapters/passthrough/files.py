"""Files of one track: fragmented MP4, WebM and Ogg, whole up to the last second at any moment."""

from __future__ import annotations

import io
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adapters.passthrough.media import Frame

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

CONTAINERS = {"opus": "ogg", "h264": "mp4", "av1": "mp4", "vp8": "webm", "vp9": "webm"}
_FOURCC = {"vp8": b"VP80", "vp9": b"VP90", "av1": b"AV01"}
_FRAGMENT_SEC = 1
_OPTIONS = {
    "mp4": {
        "movflags": "empty_moov+default_base_moof+skip_sidx+skip_trailer",
        "frag_duration": str(_FRAGMENT_SEC * 1_000_000),
        "flush_packets": "1",
    },
    "webm": {"cluster_time_limit": str(_FRAGMENT_SEC * 1000), "flush_packets": "1"},
}
VIDEO_CLOCK = 90_000
AUDIO_CLOCK = 48_000
# The encoder of WebRTC looks so many samples ahead: decoded sound is late by them (RFC 7845 section 4.2).
_PRE_SKIP = 312
_SILENCES = ((960, b"\xf8\xff\xfe"), (480, b"\xf0\xff\xfe"), (240, b"\xe8\xff\xfe"), (120, b"\xe0\xff\xfe"))
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class TrackFile(Protocol):
    """One file of one track. `write` takes frames in order; `position` counts the codec's clock from the file's time 0."""

    path: Path
    clock: int

    @property
    def size(self) -> int: ...

    @property
    def position(self) -> int:
        """Where the last frame lies, plus its duration where that is known."""
        ...

    def write(self, frame: Frame, position: int) -> bool:
        """False for what can't be written, such as a second frame at the same time."""
        ...

    def pad(self, position: int) -> None:
        """Makes it last until there, where the format can."""
        ...

    def synced(self) -> int | None:
        """A descriptor to be synced and closed by the caller, None when nothing is new."""
        ...

    def finish(self) -> None:
        """Whole, synced and closed."""
        ...


def open_file(path: Path, codec: str, first: Frame, size: tuple[int, int]) -> TrackFile:
    """`first` is the key frame that the file starts with, not written yet; `size` in pixels where the frame doesn't tell."""
    if codec == "opus":
        return OggFile(path)
    return VideoFile(path, codec, first, size)


class _Sink(io.RawIOBase):
    """What FFmpeg writes to; knows when something new is there."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("wb", buffering=0)
        self._dirty = False
        self.written = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._dirty = True
        count = self._file.write(data)
        self.written = max(self.written, self._file.tell())
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def synced(self) -> int | None:
        if not self._dirty or self._file.closed:
            return None
        self._dirty = False
        return os.dup(self._file.fileno())

    def finish(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


class VideoFile:
    """Implements `TrackFile` by FFmpeg's muxers, for H.264 and AV1 in MP4, VP8 and VP9 in WebM."""

    def __init__(self, path: Path, codec: str, first: Frame, size: tuple[int, int]) -> None:
        import av

        self.path = path
        self.clock = VIDEO_CLOCK
        self._sink = _Sink(path)
        self._last = -1
        self._position = 0
        kind = CONTAINERS[codec]
        self._output: OutputContainer = av.open(self._sink, "w", format=kind, options=_OPTIONS[kind])
        template = av.open(io.BytesIO(_sample(codec, first.data, size)), format=_demuxer(codec))
        # It must outlive the header, which is written with the first frame.
        self._template = template
        self._stream: VideoStream = self._output.add_stream_from_template(
            template.streams.video[0], opaque=True
        )
        self._time_base = Fraction(1, VIDEO_CLOCK)
        self._stream.time_base = self._time_base

    @property
    def size(self) -> int:
        return self._sink.written

    @property
    def position(self) -> int:
        return self._position

    def write(self, frame: Frame, position: int) -> bool:
        from av import Packet

        if position <= self._last:
            return False
        packet = Packet(frame.data)
        packet.stream = self._stream
        packet.time_base = self._time_base
        packet.pts = packet.dts = position
        packet.is_keyframe = frame.key
        self._output.mux_one(packet)
        # As long as the one before, but what follows a mute is no longer than others.
        self._position = position + min(position - self._last, VIDEO_CLOCK // 10) * (self._last >= 0)
        self._last = position
        return True

    def pad(self, position: int) -> None:
        """The last picture stands; nothing needs to be written for that."""

    def synced(self) -> int | None:
        return self._sink.synced()

    def finish(self) -> None:
        self._output.close()
        self._template.close()
        self._sink.finish()


class OggFile:
    """Implements `TrackFile` for Opus by RFC 7845, a page a second; what was never sent becomes silence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = AUDIO_CLOCK
        self._sink = _Sink(path)
        self._serial = int.from_bytes(os.urandom(4))
        self._sequence = 0
        self._position = 0
        self._page: list[bytes] = []
        self._segments = 0
        self._page_began = 0
        head = b"OpusHead" + struct.pack("<BBHIhB", 1, 2, _PRE_SKIP, AUDIO_CLOCK, 0, 0)
        self._emit([head], 0, begins=True)
        vendor = b"baxcloud"
        self._emit([b"OpusTags" + struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", 0)], 0)

    @property
    def size(self) -> int:
        return self._sink.written

    @property
    def position(self) -> int:
        return self._position

    def write(self, frame: Frame, position: int) -> bool:
        duration = opus_duration(frame.data)
        # Half a frame either way is the sender's rounding.
        if duration == 0 or position < self._position - duration // 2:
            return False
        self.pad(position)
        self._put(frame.data, duration)
        return True

    def pad(self, position: int) -> None:
        for duration, silence in _SILENCES:
            while position - self._position >= duration:
                self._put(silence, duration)

    def synced(self) -> int | None:
        return self._sink.synced()

    def finish(self) -> None:
        # What the decoder skips at the start is given back at the end, and cut to length by the last page's position.
        self._page.append(_SILENCES[1][1])
        self._flush(ends=True)
        self._sink.finish()

    def _put(self, data: bytes, duration: int) -> None:
        segments = len(data) // 255 + 1
        if self._segments + segments > 255 or self._position - self._page_began >= AUDIO_CLOCK:
            self._flush()
        self._page.append(data)
        self._segments += segments
        self._position += duration

    def _flush(self, *, ends: bool = False) -> None:
        if self._page:
            self._emit(self._page, self._position + ends * _PRE_SKIP, ends=ends)
        self._page = []
        self._segments = 0
        self._page_began = self._position

    def _emit(self, packets: list[bytes], granule: int, *, begins: bool = False, ends: bool = False) -> None:
        lacing = b"".join(b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in packets)
        head = struct.pack(
            "<4sBBqIIIB",
            b"OggS",
            0,
            2 * begins | 4 * ends,
            granule,
            self._serial,
            self._sequence,
            0,
            len(lacing),
        )
        self._sequence += 1
        page = bytearray(head + lacing + b"".join(packets))
        page[22:26] = ogg_checksum(bytes(page)).to_bytes(4, "little")
        self._sink.write(bytes(page))


def opus_duration(data: bytes) -> int:
    """Samples at 48 kHz of one packet (RFC 6716 section 3.1); 0 when it is none."""
    if not data:
        return 0
    configuration = data[0] >> 3
    if configuration < 12:
        single = (480, 960, 1920, 2880)[configuration & 3]
    elif configuration < 16:
        single = (480, 960)[configuration & 1]
    else:
        single = (120, 240, 480, 960)[configuration & 3]
    code = data[0] & 3
    if code == 3:
        return single * (data[1] & 0x3F) if len(data) > 1 else 0
    return single * (1 if code == 0 else 2)


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with the usual polynomial, bits in the other order: zlib's, over turned bytes."""
    turned = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(turned.to_bytes(4, "little").translate(_REVERSED))


def _demuxer(codec: str) -> str:
    return "h264" if codec == "h264" else "ivf"


def _sample(codec: str, data: bytes, size: tuple[int, int]) -> bytes:
    """A file in memory that holds nothing but the first frame: its demuxer finds out what the muxer must know."""
    if codec == "h264":
        return data
    head = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, _FOURCC[codec], *size, VIDEO_CLOCK, 1, 1, 0)
    return head + struct.pack("<IQ", len(data), 0) + data
