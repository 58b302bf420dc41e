"""From what a request asks for to one encoding that all its outputs can take (livekit-surface.md 4; contract B-38, B-40)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.domain.egress import AudioEncoding, Encoding, VideoEncoding
from server.egress.validation import enum_name, incompatible, wrong

PASSTHROUGH = "PASSTHROUGH"
DEFAULT_PRESET = "H264_720P_30"

PRESETS: Mapping[str, VideoEncoding] = {
    "H264_720P_30": VideoEncoding("h264_main", 1280, 720, 30, 3000),
    "H264_720P_60": VideoEncoding("h264_main", 1280, 720, 60, 4500),
    "H264_1080P_30": VideoEncoding("h264_main", 1920, 1080, 30, 4500),
    "H264_1080P_60": VideoEncoding("h264_main", 1920, 1080, 60, 6000),
    "PORTRAIT_H264_720P_30": VideoEncoding("h264_main", 720, 1280, 30, 3000),
    "PORTRAIT_H264_720P_60": VideoEncoding("h264_main", 720, 1280, 60, 4500),
    "PORTRAIT_H264_1080P_30": VideoEncoding("h264_main", 1080, 1920, 30, 4500),
    "PORTRAIT_H264_1080P_60": VideoEncoding("h264_main", 1080, 1920, 60, 6000),
}
"""LiveKit's table; BaxCloud's qualities are another (B-38)."""

ADVANCED = VideoEncoding("h264_main", 1280, 720, 30, 4500, 4.0)
"""What `advanced` leaves open: LiveKit's picture, the seed's 4500 kbit/s and 4 s between key frames (B-40)."""
KEY_FRAME_SEC = 4.0

_AUDIO_CODECS = {"OPUS": "opus", "AAC": "aac", "AC_MP3": "mp3"}
# VP8 is a wish that LiveKit passes over in silence.
_VIDEO_CODECS = {"H264_BASELINE": "h264_baseline", "H264_MAIN": "h264_main", "H264_HIGH": "h264_high"}

# What an output can hold, its default first; streams are always sent the same whatever was asked for.
_AUDIO: Mapping[str, tuple[str, ...]] = {
    "mp4": ("aac", "opus"), "ogg": ("opus",), "mp3": ("mp3",), "segments": ("aac",), "rtmp": ("aac",),
    "srt": ("aac",), "websocket": ("pcm",),
}  # fmt: skip
_NO_VIDEO = frozenset({"ogg", "mp3", "websocket"})
_STREAMS = frozenset({"rtmp", "srt", "websocket"})
_MIME = {"aac": "audio/aac", "opus": "audio/opus", "mp3": "audio/mpeg", "pcm": "audio/x-raw"}
_AUDIO_FILES = ("ogg", "mp4", "mp3")
_LARGEST, _FASTEST = 4096, 60
_MOST_VIDEO_KBPS, _MOST_AUDIO_KBPS = 100_000, 512
_FREQUENCIES = range(8000, 96_001)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The encoding options of a request. `audio_codec` "" leaves the choice to the outputs."""

    video: VideoEncoding
    audio_codec: str = ""
    audio_kbps: int = 128
    audio_hz: int = 44100
    key_frame_given: bool = False
    passthrough: bool = False


def wanted(request: Any, oneof: str) -> Wanted:
    """The `preset` or `advanced` of a request. Raise ServiceError for values that no encoder takes."""
    if request.WhichOneof(oneof) == "advanced":
        return _advanced(request.advanced)
    name = enum_name(request, "preset")
    if name == PASSTHROUGH:
        return Wanted(PRESETS[DEFAULT_PRESET], passthrough=True)
    if name not in PRESETS:
        raise wrong("preset")
    return Wanted(PRESETS[name])


def _advanced(options: Any) -> Wanted:
    _check_picture(options)
    for field, most in (("video_bitrate", _MOST_VIDEO_KBPS), ("audio_bitrate", _MOST_AUDIO_KBPS)):
        if not 0 <= getattr(options, field) <= most:
            raise wrong(field)
    if options.audio_frequency and options.audio_frequency not in _FREQUENCIES:
        raise wrong("audio_frequency")
    if not 0 <= options.key_frame_interval <= 60:
        raise wrong("key_frame_interval")
    return Wanted(
        video=VideoEncoding(
            codec=_VIDEO_CODECS.get(enum_name(options, "video_codec"), ADVANCED.codec),
            width=options.width or ADVANCED.width,
            height=options.height or ADVANCED.height,
            fps=options.framerate or ADVANCED.fps,
            kbps=options.video_bitrate or ADVANCED.kbps,
            key_frame_sec=options.key_frame_interval or ADVANCED.key_frame_sec,
        ),
        audio_codec=_AUDIO_CODECS.get(enum_name(options, "audio_codec"), ""),
        audio_kbps=options.audio_bitrate or 128,
        audio_hz=options.audio_frequency or 44100,
        key_frame_given=bool(options.key_frame_interval),
    )


def _check_picture(options: Any) -> None:
    for field in ("width", "height"):
        if not is_picture_size(getattr(options, field)):
            raise wrong(field)
    if options.depth not in (0, 8, 16, 24):
        raise wrong("depth")
    if not 0 <= options.framerate <= _FASTEST:
        raise wrong("framerate")


def is_picture_size(value: int) -> bool:
    """0 leaves it open; else even, and neither tiny nor huge."""
    return value == 0 or (16 <= value <= _LARGEST and value % 2 == 0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What all outputs can take: `container` is of the file, "" without one; `segment_sec` as key frames allow."""

    encoding: Encoding
    container: str
    segment_sec: int


def fit(
    options: Wanted,
    outputs: Sequence[str],
    *,
    file_type: str | None,
    segment_sec: int,
    audio: bool,
    video: bool,
) -> Fitted:
    """One encoding for everything.

    `outputs` holds `segments`, `images`, `rtmp`, `srt` or `websocket`; `file_type` is `mp4`, `ogg`, `mp3`, "" for
    whatever fits, None without a file. Raise ServiceError in LiveKit's words when there is none.
    """
    container = "" if file_type is None else file_type or _container(options, outputs, video)
    kinds = ([container] if container else []) + [kind for kind in outputs if kind != "images"]
    for kind in kinds if video else []:
        if kind in _NO_VIDEO:
            raise incompatible(f"format {kind} incompatible with codec video/h264")
    codec = _audio_codec(options, kinds) if audio and kinds else ""
    streaming = any(kind in _STREAMS for kind in kinds)
    picture, segment = _key_frames(options, segment_sec, streaming)
    hz = 48000 if codec in ("opus", "pcm") else options.audio_hz
    return Fitted(
        Encoding(
            video=picture if video else None,
            audio=AudioEncoding(codec, options.audio_kbps, hz) if codec else None,
        ),
        container,
        segment,
    )


def _container(options: Wanted, outputs: Sequence[str], video: bool) -> str:
    """DEFAULT_FILETYPE: MP4 with a picture, else the first that holds the codec which the others leave."""
    if video:
        return "mp4"
    shared = _shared([kind for kind in outputs if kind != "images"])
    for container in _AUDIO_FILES:
        possible = [codec for codec in _AUDIO[container] if shared is None or codec in shared]
        if possible and (options.audio_codec in ("", *possible) or shared is not None):
            return container
    raise incompatible("no supported file output type is compatible with the selected codecs")


def _audio_codec(options: Wanted, kinds: Sequence[str]) -> str:
    shared = _shared(kinds)
    assert shared is not None
    if not shared:
        raise incompatible("no supported codec is compatible with all outputs")
    if options.audio_codec in shared:
        return options.audio_codec
    if options.audio_codec and not any(kind in _STREAMS for kind in kinds):
        against = next(kind for kind in kinds if options.audio_codec not in _AUDIO[kind])
        raise incompatible(f"format {against} incompatible with codec {_MIME[options.audio_codec]}")
    return shared[0]


def _shared(kinds: Sequence[str]) -> tuple[str, ...] | None:
    """The codecs that all of them hold, in the order of the first; None without any output."""
    if not kinds:
        return None
    return tuple(codec for codec in _AUDIO[kinds[0]] if all(codec in _AUDIO[kind] for kind in kinds))


def _key_frames(options: Wanted, segment_sec: int, streaming: bool) -> tuple[VideoEncoding, int]:
    """Segments put key frames at their boundaries; a stream's own interval shortens them."""
    picture = options.video
    interval = picture.key_frame_sec or (KEY_FRAME_SEC if streaming else 0.0)
    if segment_sec:
        if streaming and options.key_frame_given:
            segment_sec = max(min(int(options.video.key_frame_sec), segment_sec), 1)
        interval = 0.0
    return (
        VideoEncoding(picture.codec, picture.width, picture.height, picture.fps, picture.kbps, interval),
        segment_sec,
    )
