"""What a source file is, as plain values: the prober fills them, the planner reads them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
TRANSCODE_FAILED = "TRANSCODE_FAILED"

TEXT_SUBTITLE_CODECS = frozenset({"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"})


class MediaError(Exception):
    """A source that cannot be converted; `code` is B-64's, `message` one sentence for the caller.

    `retryable` marks faults of the machine (full disk, crash of the encoder) that another attempt may survive.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class VideoStream:
    """One picture stream.

    `coded_*` are pixels as stored; `width` × `height` is the displayed size after sample aspect ratio and rotation.
    `rotation` is clockwise degrees (0, 90, 180, 270). `fps_average` counts frames over time, `fps_base` is the lowest
    rate that all timestamps fit. Colour names are FFmpeg's, "" where untagged. `field_order` is `progressive`,
    `interlaced` or `unknown`. Times in seconds, relative to the file's own clock; rates in bit/s; None = unknown.
    """

    index: int
    codec: str
    coded_width: int
    coded_height: int
    width: int
    height: int
    sample_aspect: Fraction = Fraction(1)
    rotation: int = 0
    fps_average: Fraction | None = None
    fps_base: Fraction | None = None
    pix_fmt: str = "yuv420p"
    bit_depth: int = 8
    color_transfer: str = ""
    color_primaries: str = ""
    color_space: str = ""
    color_range: str = ""
    field_order: str = "unknown"
    attached_picture: bool = False
    default: bool = False
    bit_rate: int | None = None
    start_sec: float | None = None
    duration_sec: float | None = None


@dataclass(frozen=True, slots=True)
class AudioStream:
    index: int
    codec: str
    channels: int
    sample_rate: int
    language: str = ""
    default: bool = False
    bit_rate: int | None = None
    start_sec: float | None = None
    duration_sec: float | None = None


@dataclass(frozen=True, slots=True)
class SubtitleStream:
    """`language` is the file's own tag ("" if none); only text codecs can become WebVTT."""

    index: int
    codec: str
    language: str = ""
    title: str = ""
    default: bool = False
    forced: bool = False

    @property
    def is_text(self) -> bool:
        return self.codec in TEXT_SUBTITLE_CODECS


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """`container` is FFmpeg's demuxer name. `duration_exact` is False where FFmpeg only estimated it from the bit
    rate, so that a shorter decode is no proof of a truncated file.
    """

    container: str
    duration_sec: float | None
    start_sec: float
    bit_rate: int | None
    size: int
    video: tuple[VideoStream, ...] = ()
    audio: tuple[AudioStream, ...] = ()
    subtitles: tuple[SubtitleStream, ...] = ()
    stream_count: int = 0
    duration_exact: bool = True

    @property
    def main_video(self) -> VideoStream | None:
        """The default stream, else the largest; never cover art."""
        pictures = [stream for stream in self.video if not stream.attached_picture]
        return max(pictures, key=lambda s: (s.default, s.width * s.height, -s.index), default=None)

    @property
    def main_audio(self) -> AudioStream | None:
        return max(self.audio, key=lambda s: (s.default, -s.index), default=None)

    @property
    def cover(self) -> VideoStream | None:
        return next((stream for stream in self.video if stream.attached_picture), None)


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What is refused before anything is decoded (encoding-and-safety 2.2)."""

    max_duration_sec: float = 12 * 3600.0
    max_width: int = 8192
    max_height: int = 8192
    max_pixels: int = 40_000_000
    max_streams: int = 32


def check_limits(info: MediaInfo, limits: MediaLimits) -> None:
    """Raise MediaError UNSUPPORTED_FORMAT for what exceeds the limits or holds nothing to convert."""
    if info.stream_count > limits.max_streams:
        raise MediaError(
            UNSUPPORTED_FORMAT,
            f"the source has {info.stream_count} streams, {limits.max_streams} are allowed",
        )
    if info.duration_sec is not None and info.duration_sec > limits.max_duration_sec:
        hours = limits.max_duration_sec / 3600
        raise MediaError(UNSUPPORTED_FORMAT, f"the source is longer than {hours:g} hours")
    for stream in info.video:
        too_wide = stream.coded_width > limits.max_width or stream.coded_height > limits.max_height
        if too_wide or stream.coded_width * stream.coded_height > limits.max_pixels:
            size = f"{stream.coded_width}x{stream.coded_height}"
            raise MediaError(UNSUPPORTED_FORMAT, f"the picture of {size} pixels is larger than allowed")
    if info.main_video is None and info.main_audio is None:
        raise MediaError(UNSUPPORTED_FORMAT, "the source has neither video nor audio")


def left_out(info: MediaInfo) -> tuple[str, ...]:
    """What of the source a conversion does not carry over, a sentence each."""
    counts = (
        (sum(not stream.attached_picture for stream in info.video) - 1, "more video stream"),
        (len(info.audio) - 1, "more audio stream"),
        (sum(not stream.is_text for stream in info.subtitles), "bitmap subtitle stream"),
    )
    return tuple(f"{n} {what}{'s were' if n > 1 else ' was'} left out" for n, what in counts if n > 0)
