"""Pure rendering of HLS playlists (RFC 8216, Apple's authoring rules) and the rates they announce."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from server.domain.ladder import EncodePlan, Rendition

MASTER_NAME = "master.m3u8"
PLAYLIST_NAME = "playlist.m3u8"
THUMBNAIL_NAME = "thumbnail.jpg"
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
SEGMENT_TYPE = "video/mp2t"
SUBTITLE_TYPE = "text/vtt"
VERSION = 6
# 90 kHz time stamp of media time 0 in every rendition: room for B-frames and AAC priming before it.
START_PTS = 126_000
SUBTITLE_GROUP = "subs"
# Apple [1.32]: the first variant is what players start with and should need about this much.
FIRST_VARIANT_RATE = 2_000_000
# Headers and stuffing of MPEG-TS over the elementary streams.
_TS_OVERHEAD = 1.1


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment: `name` inside its playlist's folder, `duration_sec` exact, `size` in bytes."""

    name: str
    duration_sec: float
    size: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One `EXT-X-STREAM-INF`. Rates in bit/s; `width` 0 and `fps` None for audio only."""

    name: str
    bandwidth: int
    average_bandwidth: int
    codecs: tuple[str, ...]
    width: int = 0
    height: int = 0
    fps: Fraction | None = None

    @property
    def uri(self) -> str:
        return f"{self.name}/{PLAYLIST_NAME}"


@dataclass(frozen=True, slots=True)
class SubtitleVariant:
    """One `EXT-X-MEDIA` of type SUBTITLES. `language` is BCP 47, `und` if unknown; `folder` relative to the master."""

    folder: str
    language: str
    name: str
    default: bool = False
    forced: bool = False

    @property
    def uri(self) -> str:
        return f"{self.folder}/{PLAYLIST_NAME}"


def segment_name(index: int) -> str:
    """VC-64: three digits, more from 1000 on."""
    return f"segment_{index:03d}.ts"


def media_playlist(segments: Sequence[Segment], *, target_duration: int, ended: bool) -> str:
    """EVENT while the encode runs, VOD with ENDLIST at its end; the target duration is the same in both."""
    longest = max((math.floor(segment.duration_sec + 0.5) for segment in segments), default=0)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{max(1, target_duration, longest)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if ended else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    for segment in segments:
        lines += [f"#EXTINF:{segment.duration_sec:.6f},", segment.name]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def master_playlist(variants: Sequence[Variant], subtitles: Sequence[SubtitleVariant] = ()) -> str:
    """The variant nearest to 2 Mbit/s first, where players start (Apple [1.32]); the others as requested."""
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines += [_media(track) for track in subtitles]
    first = min(variants, key=lambda v: abs(v.bandwidth - FIRST_VARIANT_RATE), default=None)
    for variant in sorted(variants, key=lambda v: v is not first):
        lines += [_stream_inf(variant, with_subtitles=bool(subtitles)), variant.uri]
    return "\n".join(lines) + "\n"


def planned_variant(plan: EncodePlan, rendition: Rendition, codecs: tuple[str, ...]) -> Variant:
    """What can be announced before the end: the encoder's own limits as upper bounds."""
    video, audio = plan.video_of(rendition), plan.audio_bitrate_of(rendition)
    return Variant(
        name=rendition.name,
        bandwidth=int(((video.maxrate if video else 0) + audio) * _TS_OVERHEAD),
        average_bandwidth=int(((video.bitrate if video else 0) + audio) * _TS_OVERHEAD),
        codecs=codecs,
        width=video.width if video else 0,
        height=video.height if video else 0,
        fps=plan.fps,
    )


def measured_variant(
    plan: EncodePlan, rendition: Rendition, codecs: tuple[str, ...], segments: Sequence[Segment]
) -> Variant:
    """What the finished segments really need (Apple [9.13], [9.14])."""
    video = plan.video_of(rendition)
    return Variant(
        name=rendition.name,
        bandwidth=peak_rate(segments, plan.target_duration),
        average_bandwidth=average_rate(segments),
        codecs=codecs,
        width=video.width if video else 0,
        height=video.height if video else 0,
        fps=plan.fps,
    )


def average_rate(segments: Sequence[Segment]) -> int:
    """bit/s over all segments, rounded up."""
    duration = sum(segment.duration_sec for segment in segments)
    return int(sum(segment.size for segment in segments) * 8 / duration) + 1 if duration else 0


def peak_rate(segments: Sequence[Segment], target_duration: int) -> int:
    """RFC 8216 4.1: the largest rate of any run of segments that lasts 0.5 to 1.5 target durations, in bit/s.

    A last segment of a few frames is mostly its IDR; alone it says nothing about the rate a player needs.
    """
    peak = 0.0
    for start in range(len(segments)):
        size, duration = 0, 0.0
        for segment in segments[start:]:
            size, duration = size + segment.size, duration + segment.duration_sec
            if duration > 1.5 * target_duration:
                break
            if duration >= 0.5 * target_duration:
                peak = max(peak, size * 8 / duration)
    return max(int(peak) + 1 if peak else 0, average_rate(segments))


def _stream_inf(variant: Variant, *, with_subtitles: bool) -> str:
    attributes = [
        f"BANDWIDTH={variant.bandwidth}",
        f"AVERAGE-BANDWIDTH={variant.average_bandwidth}",
        f'CODECS="{",".join(variant.codecs)}"',
    ]
    if variant.fps is not None:
        attributes += [f"RESOLUTION={variant.width}x{variant.height}", f"FRAME-RATE={float(variant.fps):.3f}"]
    if with_subtitles:
        attributes.append(f'SUBTITLES="{SUBTITLE_GROUP}"')
    if variant.fps is not None:
        attributes.append("CLOSED-CAPTIONS=NONE")
    return "#EXT-X-STREAM-INF:" + ",".join(attributes)


def _media(track: SubtitleVariant) -> str:
    name = "".join(c for c in track.name if c not in '"\r\n')
    return (
        f'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="{SUBTITLE_GROUP}",NAME="{name}",LANGUAGE="{track.language}",'
        f'DEFAULT={_yes(track.default)},AUTOSELECT=YES,FORCED={_yes(track.forced)},URI="{track.uri}"'
    )


def _yes(value: bool) -> str:
    return "YES" if value else "NO"
