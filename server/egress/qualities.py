"""BaxCloud's qualities (B-38, E.6) and formats as one encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from server.domain.egress import AudioEncoding, Encoding, VideoEncoding

KEY_FRAME_SEC = 4.0

QUALITIES: Mapping[str, VideoEncoding] = {
    "480p": VideoEncoding("h264_main", 854, 480, 30, 1500, KEY_FRAME_SEC),
    "720p": VideoEncoding("h264_main", 1280, 720, 30, 3000, KEY_FRAME_SEC),
    "1080p": VideoEncoding("h264_main", 1920, 1080, 30, 6000, KEY_FRAME_SEC),
    "4k": VideoEncoding("h264_main", 3840, 2160, 30, 15000, KEY_FRAME_SEC),
}
DEFAULT_QUALITY = "720p"


@dataclass(frozen=True, slots=True)
class Format:
    """What a file type holds. `video_codec` None: the quality's own; "" for no picture at all."""

    container: str
    audio: AudioEncoding
    video_codec: str | None = None


FORMATS: Mapping[str, Format] = {
    "MP4": Format("mp4", AudioEncoding("aac", 128, 44100)),
    "WEBM": Format("webm", AudioEncoding("opus", 128, 48000), "vp9"),
    "OGG": Format("ogg", AudioEncoding("opus", 128, 48000), ""),
}
DEFAULT_FILE_TYPE = "MP4"


def encoding_of(quality: str, file_type: str) -> Encoding:
    """Of a composition in one of `QUALITIES`, for one of `FORMATS`; streams take what MP4 does."""
    chosen = FORMATS[file_type]
    video: VideoEncoding | None = QUALITIES[quality]
    if chosen.video_codec == "":
        video = None
    elif chosen.video_codec is not None:
        video = replace(QUALITIES[quality], codec=chosen.video_codec)
    return Encoding(video, chosen.audio)
