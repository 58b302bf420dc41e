"""Looks at a source with PyAV in a process of its own: `python -m adapters.ffmpeg.probe FORMAT PATH` prints JSON.

Demuxers and decoders meet hostile bytes here for the first time, so the process is limited and may be killed.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.domain.media import (
    TRANSCODE_FAILED,
    UNSUPPORTED_FORMAT,
    AudioStream,
    MediaError,
    MediaInfo,
    MediaLimits,
    SubtitleStream,
    VideoStream,
)

if TYPE_CHECKING:
    from av.container import InputContainer

_TRANSFER = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 13: "iec61966-2-1",
             14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67"}  # fmt: skip
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 11: "smpte431",
              12: "smpte432"}  # fmt: skip
_SPACE = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020c",
          14: "ictcp"}  # fmt: skip
_RANGE = {1: "tv", 2: "pc"}
_FIELD_ORDER = {0: "unknown", 1: "progressive"}
_ESTIMATED = "Estimating duration from bitrate"
_FIRST_PACKETS = 500
# Some interlaced streams begin with a progressive frame.
_FIRST_FRAMES = 5
# Formats with a tick rate instead of a frame rate report that as base rate.
_MAX_BASE_RATE = 1000
# Browsers record WebM with the clock's 1000 as frame rate; no camera does.
_MAX_REAL_RATE = 240
_MAX_SAMPLE_ASPECT = 20


def read_media(path: Path, container_format: str) -> dict[str, Any]:
    """JSON-ready facts, or `{"error": code, "message": text}`."""
    import av
    import av.logging

    av.logging.set_level(av.logging.WARNING)
    with av.logging.Capture(local=False) as log:
        try:
            with av.open(
                f"file:{path}",
                format=container_format,
                options={
                    "protocol_whitelist": "file",
                    "probesize": "50000000",
                    "analyzeduration": "20000000",
                },
                metadata_errors="replace",
            ) as container:
                facts = _facts(container)
        except av.FFmpegError as error:
            cause = next(
                (m for _, _, m in log if "not found" in m or "Invalid" in m), str(error.strerror)
            ).strip()
            return {"error": TRANSCODE_FAILED, "message": f"the source cannot be read: {cause}"}
    if "error" not in facts:
        facts["duration_exact"] = not any(_ESTIMATED in message for _, _, message in log)
    return facts


def _facts(container: InputContainer) -> dict[str, Any]:
    import av

    streams: dict[str, list[dict[str, Any]]] = {"video": [], "audio": [], "subtitle": []}
    unknown: set[str] = set()
    for stream in container.streams:
        if stream.type not in streams:
            continue
        # No codec context: FFmpeg knows no decoder.
        if getattr(stream, "codec_context", None) is None:
            unknown.add(stream.type)
        else:
            streams[stream.type].append(_stream_facts(stream))
    for kind in ("video", "audio"):
        if kind in unknown and not streams[kind]:
            return {"error": UNSUPPORTED_FORMAT, "message": f"the source's {kind} codec is not supported"}
    _look_inside(container, streams["video"])
    return {
        "container": container.format.name.split(",")[0],
        "duration_sec": container.duration / av.time_base if container.duration else None,
        "start_sec": (container.start_time or 0) / av.time_base,
        "bit_rate": container.bit_rate or None,
        "size": container.size,
        "stream_count": len(container.streams),
        "video": streams["video"],
        "audio": streams["audio"],
        "subtitles": streams["subtitle"],
    }


def _stream_facts(stream: Any) -> dict[str, Any]:
    from av.stream import Disposition

    context, flags = stream.codec_context, stream.disposition
    facts = {
        "index": stream.index,
        "codec": context.codec.canonical_name,
        "default": bool(flags & Disposition.default),
    }
    timing = {
        "start_sec": _seconds(stream.start_time, stream.time_base),
        "duration_sec": _stream_duration(stream),
    }
    language = {"language": stream.metadata.get("language", "")}
    if stream.type == "video":
        attached = {"attached_picture": bool(flags & Disposition.attached_pic)}
        return facts | timing | attached | _picture(stream) | {"bit_rate": context.bit_rate or None}
    if stream.type == "audio":
        sound = {"channels": context.channels, "sample_rate": context.sample_rate}
        return facts | timing | language | sound | {"bit_rate": context.bit_rate or None}
    title = {"title": stream.metadata.get("title", ""), "forced": bool(flags & Disposition.forced)}
    return facts | language | title


def _picture(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    base = stream.base_rate if stream.base_rate and 0 < stream.base_rate <= _MAX_BASE_RATE else None
    return {
        "coded_width": context.width,
        "coded_height": context.height,
        "sample_aspect": str(stream.sample_aspect_ratio or context.sample_aspect_ratio or 1),
        "fps_average": str(stream.average_rate) if stream.average_rate else None,
        "fps_base": str(base) if base else None,
        "pix_fmt": context.pix_fmt or "",
        "bit_depth": max((c.bits for c in context.format.components), default=8) if context.format else 8,
        "color_transfer": _TRANSFER.get(int(context.color_trc), ""),
        "color_primaries": _PRIMARIES.get(int(context.color_primaries), ""),
        "color_space": _SPACE.get(int(context.colorspace), ""),
        "color_range": _RANGE.get(int(context.color_range), ""),
        "field_order": _FIELD_ORDER.get(int(context.field_order), "interlaced"),
    }


def _look_inside(container: InputContainer, video: list[dict[str, Any]]) -> None:
    """Adds what only packets and frames tell: rotation, real interlacing, and a frame rate where the header has none."""
    import av

    pictures = {e["index"]: e for e in video if not e["attached_picture"] and _is_decodable(e)}
    if not pictures:
        return
    frames_left = {
        index: 1 if entry["field_order"] == "progressive" else _FIRST_FRAMES
        for index, entry in pictures.items()
    }
    times: dict[int, list[float]] = {index: [] for index, entry in pictures.items() if _lacks_rate(entry)}
    # A damaged start is no reason to refuse: the encode itself shows how far the source goes.
    with contextlib.suppress(av.FFmpegError):
        for number, packet in enumerate(container.demux([container.streams[index] for index in pictures])):
            index = packet.stream_index
            if number > _FIRST_PACKETS or not (times or any(frames_left.values())):
                break
            if index in times and packet.pts is not None and packet.time_base is not None:
                times[index].append(float(packet.pts * packet.time_base))
            if frames_left.get(index):
                # Draining gives the first frame at once instead of after the decoder's reordering delay.
                frames = packet.decode() or (_drain(packet.stream) if frames_left[index] == 1 else ())
                frames_left[index] = max(0, frames_left[index] - _look_at_frames(frames, pictures[index]))
    for index, stamps in times.items():
        if len(stamps) > 1 and max(stamps) > min(stamps):
            rate = Fraction((len(stamps) - 1) / (max(stamps) - min(stamps))).limit_denominator(1001)
            pictures[index] |= {"fps_average": str(rate), "fps_base": None}


def _drain(stream: Any) -> list[Any]:
    frames: list[Any] = stream.codec_context.decode(None)
    stream.codec_context.flush_buffers()
    return frames


def _look_at_frames(frames: Iterable[Any], entry: dict[str, Any]) -> int:
    """Takes over what the frames say; how many there were."""
    count = 0
    for frame in frames:
        count += 1
        entry["rotation"] = round(-frame.rotation / 90) * 90 % 360
        if frame.interlaced_frame:
            entry["field_order"] = "interlaced"
    return count


def _is_decodable(entry: dict[str, Any]) -> bool:
    """Oversized pictures are refused by the planner; decoding one here would only burn time and memory."""
    return bool(entry["coded_width"] * entry["coded_height"] <= MediaLimits().max_pixels)


def _lacks_rate(entry: dict[str, Any]) -> bool:
    rate = entry["fps_average"]
    return rate is None or Fraction(rate) > _MAX_REAL_RATE


def _stream_duration(stream: Any) -> float | None:
    known = _seconds(stream.duration, stream.time_base)
    tag = stream.metadata.get("DURATION", "")
    if known is None and tag.count(":") == 2:
        # Matroska's tag, written as the end of the stream on the file's clock.
        with contextlib.suppress(ValueError):
            hours, minutes, seconds = (float(part) for part in tag.split(":"))
            known = (
                hours * 3600 + minutes * 60 + seconds - (_seconds(stream.start_time, stream.time_base) or 0.0)
            )
    return known


def _seconds(ticks: int | None, time_base: Fraction | None) -> float | None:
    return None if ticks is None or time_base is None else float(ticks * time_base)


def media_info(facts: dict[str, Any]) -> MediaInfo:
    """The child's JSON as values. Raise MediaError for its `error`."""
    if "error" in facts:
        raise MediaError(facts["error"], facts["message"])
    return MediaInfo(
        container=facts["container"],
        duration_sec=facts["duration_sec"],
        start_sec=facts["start_sec"],
        bit_rate=facts["bit_rate"],
        size=facts["size"],
        stream_count=facts["stream_count"],
        duration_exact=facts["duration_exact"],
        video=tuple(_video(entry) for entry in facts["video"]),
        audio=tuple(AudioStream(**entry) for entry in facts["audio"] if entry["channels"]),
        subtitles=tuple(SubtitleStream(**entry) for entry in facts["subtitles"]),
    )


def _video(entry: dict[str, Any]) -> VideoStream:
    aspect = Fraction(entry.pop("sample_aspect"))
    if not Fraction(1, _MAX_SAMPLE_ASPECT) <= aspect <= _MAX_SAMPLE_ASPECT:
        aspect = Fraction(1)
    rotation = entry.pop("rotation", 0)
    width, height = max(1, round(entry["coded_width"] * aspect)), entry["coded_height"]
    if rotation in (90, 270):
        width, height = height, width
    return VideoStream(
        **entry
        | {key: Fraction(entry[key]) if entry[key] else None for key in ("fps_average", "fps_base")}
        | {"width": width, "height": height, "sample_aspect": aspect, "rotation": rotation}
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(read_media(Path(sys.argv[2]), sys.argv[1])) + "\n")
