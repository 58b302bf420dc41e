"""The pure planner: from a probed source and the caller's wishes to an exact encode plan, without FFmpeg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from server.domain.media import (
    UNSUPPORTED_FORMAT,
    AudioStream,
    MediaError,
    MediaInfo,
    MediaLimits,
    VideoStream,
    check_limits,
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A box in pixels and bit rates in bit/s (VC-56 … VC-59)."""

    width: int
    height: int
    video_bitrate: int
    audio_bitrate: int


PRESETS: Mapping[str, Preset] = {
    "360p": Preset(640, 360, 800_000, 96_000),
    "480p": Preset(854, 480, 1_400_000, 128_000),
    "720p": Preset(1280, 720, 2_800_000, 128_000),
    "1080p": Preset(1920, 1080, 5_000_000, 192_000),
}
DEFAULT_FORMATS = ("360p", "480p", "720p")
FFMPEG_PRESETS = ("ultrafast", "veryfast", "fast", "medium", "slow", "veryslow")

MAX_ASPECT = 20
MAX_FPS = Fraction(60)
FALLBACK_FPS = Fraction(25)
IDR_TARGET_SEC = Fraction(2)
MAX_GOP_SEC = Fraction(5, 2)
MIN_VIDEO_BITRATE = 64_000
# VBV: with these two a 2 s segment stays within twice the average, Apple's limit [1.30].
MAXRATE_FACTOR = 1.25
BUFFER_FACTOR = 1.5
# Containers are less exact about ends than this; a short tail of sound without pictures harms nobody.
PAD_PICTURE_FROM_SEC = 0.5

_STANDARD_FPS = tuple(
    Fraction(*pair)
    for pair in (
        (5, 1), (8, 1), (10, 1), (12, 1), (15, 1), (20, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1),
        (48000, 1001), (48, 1), (50, 1), (60000, 1001), (60, 1), (90, 1), (100, 1), (120000, 1001), (120, 1),
        (144, 1), (240000, 1001), (240, 1),
    )
)  # fmt: skip

# How many bits H.264 needs for what one bit of the source's codec shows.
_CODEC_EFFICIENCY: Mapping[str, float] = {"hevc": 1.6, "vp9": 1.5, "av1": 2.0, "vvc": 2.2}

# H.264 levels: name, max macroblocks a second, max macroblocks a frame, max High-profile rate in bit/s (A.3.1).
_LEVELS = (
    ("3.0", 40_500, 1_620, 12_500_000),
    ("3.1", 108_000, 3_600, 17_500_000),
    ("3.2", 216_000, 5_120, 25_000_000),
    ("4.0", 245_760, 8_192, 25_000_000),
    ("4.2", 522_240, 8_704, 62_500_000),
)


@dataclass(frozen=True, slots=True)
class ConversionSettings:
    """The caller's wishes, already validated (VC-06 … VC-12). `hls_time` in seconds, may be fractional."""

    output_formats: tuple[str, ...] = DEFAULT_FORMATS
    ffmpeg_preset: str = "fast"
    hls_time: Fraction = Fraction(2)


@dataclass(frozen=True, slots=True)
class PictureFixes:
    """What must happen to the decoded picture besides scaling.

    `hdr` is `pq`, `hlg` or "". `wide_gamut` asks for BT.2020 → BT.709 without tone mapping. `matrix` is the YUV matrix
    to convert from ("" = already BT.709). `pad_sec` freezes the last frame while the sound goes on.
    """

    deinterlace: bool = False
    hdr: str = ""
    wide_gamut: bool = False
    matrix: str = ""
    full_range: bool = False
    pad_sec: float = 0.0


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One H.264 encode. Pixels, bit/s, bits; `level` as x264 spells it."""

    width: int
    height: int
    bitrate: int
    maxrate: int
    buffer: int
    level: str


@dataclass(frozen=True, slots=True)
class Rendition:
    """One requested output; `video` and `audio` index the plan's encodes, which equal renditions share."""

    name: str
    video: int | None
    audio: int | None


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """All that the encoder needs, exact to the frame.

    `renditions` in requested order. `video_tracks` largest first; `audio_tracks` are bit rates in bit/s.
    A segment holds `segment_frames` frames of `fps` with an IDR every `gop_frames` (0 and None for audio only);
    `segment_sec` is its exact length. `audio_until_sec` pads sound with silence up to there.
    `expected_sec` is what a complete decode reaches, None if unknown; with `expected_exact` a shorter one is an error.
    """

    container: str
    renditions: tuple[Rendition, ...]
    video_tracks: tuple[VideoTrack, ...]
    audio_tracks: tuple[int, ...]
    video_index: int | None
    audio_index: int | None
    subtitle_indexes: tuple[int, ...]
    preset: str
    fps: Fraction | None
    gop_frames: int
    segment_frames: int
    segment_sec: Fraction
    target_duration: int
    fixes: PictureFixes
    audio_until_sec: float | None
    expected_sec: float | None
    expected_exact: bool
    max_duration_sec: float
    cover_index: int | None = None

    def video_of(self, rendition: Rendition) -> VideoTrack | None:
        return None if rendition.video is None else self.video_tracks[rendition.video]

    def audio_bitrate_of(self, rendition: Rendition) -> int:
        return 0 if rendition.audio is None else self.audio_tracks[rendition.audio]


def plan_encode(
    info: MediaInfo, settings: ConversionSettings, limits: MediaLimits | None = None
) -> EncodePlan:
    """Raise MediaError UNSUPPORTED_FORMAT for what cannot or may not be converted."""
    limits = limits or MediaLimits()
    check_limits(info, limits)
    video, audio = info.main_video, info.main_audio
    tracks: list[VideoTrack] = []
    bitrates: list[int] = []
    fps = None if video is None else output_fps(video)
    for name in settings.output_formats:
        preset = PRESETS[name]
        if video is not None and fps is not None:
            tracks.append(_video_track(info, video, preset, fps))
        if audio is not None:
            bitrates.append(preset.audio_bitrate)
    video_tracks = tuple(sorted(set(tracks), key=lambda t: (-t.width * t.height, -t.bitrate)))
    audio_tracks = tuple(sorted(set(bitrates)))
    renditions = tuple(
        Rendition(
            name,
            video_tracks.index(tracks[i]) if tracks else None,
            audio_tracks.index(bitrates[i]) if bitrates else None,
        )
        for i, name in enumerate(settings.output_formats)
    )
    if fps is None:
        gop, per_segment, length = 0, 0, Fraction(settings.hls_time)
    else:
        gop, per_segment = segment_grid(fps, Fraction(settings.hls_time))
        length = per_segment / fps
    pad_video, audio_until = _paddings(info, video, audio)
    return EncodePlan(
        container=info.container,
        renditions=renditions,
        video_tracks=video_tracks,
        audio_tracks=audio_tracks,
        video_index=video.index if video else None,
        audio_index=audio.index if audio else None,
        subtitle_indexes=tuple(s.index for s in info.subtitles if s.is_text) if video else (),
        preset=settings.ffmpeg_preset,
        fps=fps,
        gop_frames=gop,
        segment_frames=per_segment,
        segment_sec=length,
        target_duration=_target_duration(length, audio_only=video is None),
        fixes=_fixes(video, pad_video) if video else PictureFixes(),
        audio_until_sec=audio_until,
        expected_sec=_expected(info),
        expected_exact=info.duration_exact,
        max_duration_sec=limits.max_duration_sec,
        cover_index=info.cover.index if info.cover else None,
    )


def rendition_size(width: int, height: int, preset: Preset) -> tuple[int, int]:
    """Even size that fits the preset's box, turned for portrait sources (design section 12), never above the source
    (VC-55).
    """
    box = (preset.width, preset.height) if width >= height else (preset.height, preset.width)
    scale = min(Fraction(box[0], width), Fraction(box[1], height), Fraction(1))
    return _even(width, scale), _even(height, scale)


def output_fps(video: VideoStream) -> Fraction:
    """The source's own constant rate; for variable rate the nearest standard one; at most 60, at least 1.

    Above 60 an integer factor is dropped, so that every kept frame is a source frame at its own time.
    """
    average, base = video.fps_average or video.fps_base, video.fps_base
    if not average or average <= 0:
        return FALLBACK_FPS
    constant = base is not None and abs(base - average) <= average / 100
    if constant or video.field_order == "interlaced":
        nearest = _nearest_standard(average)
        rate = nearest if abs(nearest - average) <= average / 1000 else average
    else:
        # A base rate not far above the average is the capture's nominal rate with frames left out.
        nominal = base if base and average < base <= min(MAX_FPS, average * 6) else average
        rate = _nearest_standard(min(nominal, MAX_FPS))
    if rate > MAX_FPS:
        rate /= ceil(rate / (MAX_FPS * Fraction(101, 100)))
    if rate < 1:
        rate *= ceil(1 / rate)
    return rate.limit_denominator(1_000_000)


def segment_grid(fps: Fraction, hls_time: Fraction) -> tuple[int, int]:
    """(frames between IDRs, frames in a segment): whole GOPs, as near to `hls_time` as the frame rate allows, with an
    IDR about every 2 s in long segments.
    """
    frames = hls_time * fps
    counts = range(ceil(hls_time / MAX_GOP_SEC), ceil(hls_time) + 1)

    def grid(count: int) -> tuple[int, int]:
        gop = max(1, _round(frames / count))
        return gop, gop * count

    def badness(count: int) -> tuple[Fraction, Fraction]:
        gop, total = grid(count)
        return abs(total - frames), abs(gop / fps - IDR_TARGET_SEC)

    return grid(min((count for count in counts if count == counts[0] or count <= frames), key=badness))


def _video_track(info: MediaInfo, video: VideoStream, preset: Preset, fps: Fraction) -> VideoTrack:
    short, long = sorted((video.width, video.height))
    if short < 2 or long > MAX_ASPECT * short:
        raise MediaError(
            UNSUPPORTED_FORMAT,
            f"a picture of {video.width}x{video.height} is more than {MAX_ASPECT} times as long as wide",
        )
    width, height = rendition_size(video.width, video.height, preset)
    bitrate = _video_bitrate(info, video, preset, width * height)
    maxrate = int(bitrate * MAXRATE_FACTOR)
    return VideoTrack(
        width, height, bitrate, maxrate, int(bitrate * BUFFER_FACTOR), _level(width, height, fps, maxrate)
    )


def _video_bitrate(info: MediaInfo, video: VideoStream, preset: Preset, pixels: int) -> int:
    """The preset's rate, capped so that a thin source is not inflated (encoding-and-safety 1.6)."""
    source = video.bit_rate
    if source is None and info.bit_rate is not None:
        source = info.bit_rate - sum(stream.bit_rate or 0 for stream in info.audio)
    if not source or source <= 0:
        return preset.video_bitrate
    ratio = min(1.0, pixels / max(1, video.coded_width * video.coded_height))
    cap = 1.3 * source * _CODEC_EFFICIENCY.get(video.codec, 1.0) * ratio**0.75
    return int(min(preset.video_bitrate, max(MIN_VIDEO_BITRATE, cap)))


def _level(width: int, height: int, fps: Fraction, maxrate: int) -> str:
    macroblocks = ceil(width / 16) * ceil(height / 16)
    for name, per_second, per_frame, rate in _LEVELS:
        if macroblocks <= per_frame and macroblocks * fps <= per_second and maxrate <= rate:
            return name
    return "5.1"


def _fixes(video: VideoStream, pad_sec: float) -> PictureFixes:
    hdr = {"smpte2084": "pq", "arib-std-b67": "hlg"}.get(video.color_transfer, "")
    wide = not hdr and video.color_primaries == "bt2020"
    matrix = ""
    if not hdr and not wide and not video.pix_fmt.startswith(("gbr", "rgb", "bgr", "pal")):
        sd_default = "" if max(video.coded_height, video.coded_width) >= 1280 else "smpte170m"
        tagged = {
            "bt709": "",
            "smpte170m": "smpte170m",
            "bt470bg": "bt470bg",
            "fcc": "fcc",
            "smpte240m": "smpte240m",
        }
        matrix = tagged.get(video.color_space, sd_default)
    return PictureFixes(
        deinterlace=video.field_order == "interlaced",
        hdr=hdr,
        wide_gamut=wide,
        matrix=matrix,
        full_range=video.color_range == "pc" or video.pix_fmt.startswith("yuvj"),
        pad_sec=pad_sec,
    )


def _paddings(
    info: MediaInfo, video: VideoStream | None, audio: AudioStream | None
) -> tuple[float, float | None]:
    """(seconds to freeze the last picture, second up to which silence is added).

    A muxed stream whose sound or picture ends early stalls players that feed both to MSE, and a tail without
    pictures has no key frame to cut at.
    """
    if video is None or audio is None:
        return 0.0, None
    picture_end, sound_end = _end(info, video), _end(info, audio)
    if picture_end is None:
        return 0.0, None
    if sound_end is not None and sound_end - picture_end > PAD_PICTURE_FROM_SEC:
        return sound_end - picture_end, None
    # Where the sound is long enough this adds nothing; a track may also turn out to be empty.
    return 0.0, picture_end


def _end(info: MediaInfo, stream: VideoStream | AudioStream) -> float | None:
    if stream.duration_sec is None:
        return None
    start = stream.start_sec if stream.start_sec is not None else info.start_sec
    return start - info.start_sec + stream.duration_sec


def _expected(info: MediaInfo) -> float | None:
    """The end of the later of the two converted streams; other streams (chapters, subtitles) do not count."""
    ends = [_end(info, stream) for stream in (info.main_video, info.main_audio) if stream is not None]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else info.duration_sec


def _target_duration(length: Fraction, *, audio_only: bool) -> int:
    # Audio segments end on AAC frames (21 ms), so they may round up where the plan does not.
    slack = Fraction(3, 100) if audio_only else Fraction(0)
    return max(1, _round(length + slack))


def _nearest_standard(rate: Fraction) -> Fraction:
    return min(_STANDARD_FPS, key=lambda standard: abs(standard - rate))


def _even(length: int, scale: Fraction) -> int:
    return max(2, min(2 * _round(length * scale / 2), length // 2 * 2))


def _round(value: Fraction) -> int:
    """Half up; Python's own rounds half to even."""
    return floor(value + Fraction(1, 2))
