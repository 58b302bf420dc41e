"""The only module that knows ffmpeg-python: compiles plans into argument vectors, and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from adapters.ffmpeg.sniff import FORMAT_WHITELIST
from server.domain.hls import START_PTS
from server.domain.ladder import EncodePlan, PictureFixes, Rendition, VideoTrack

_GLOBAL = ("-hide_banner", "-nostdin", "-loglevel", "level+warning", "-y")
_PROGRESS = ("-progress", "pipe:1", "-nostats", "-stats_period", "0.5")
_MAX_PIXELS = 40_000_000
_MAX_STREAMS = 64
_SAMPLE_RATE = 48_000
# No muxer on the way may shift times by its own delay, so that media time 0 is START_PTS in every rendition: MPEG-TS
# adds twice its `max_delay` of 0.7 s.
_KEEP_TIMES = {"avoid_negative_ts": "disabled"}
_TS_OPTIONS = f"max_delay={START_PTS * 1_000_000 // 90_000 // 2}\\:avoid_negative_ts=disabled"
# The segment muxer cuts at the first IDR at or after n × segment_time; times in 90 kHz ticks may fall short of the
# exact product by a rounding, so it is asked for slightly less.
_CUT_SLACK_SEC = Fraction(20, 1_000_000)
_BT709 = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "range": "tv"}
# HDR's reference white (BT.2408). With it and mobius, everything up to mid grey keeps its SDR level (measured: 123 → 123
# of 255, white 235 → 201), and only highlights are compressed; hable darkens the whole picture.
_HDR_WHITE_NITS = 203
_ZIMG_BT709 = {"p": "bt709", "t": "bt709", "m": "bt709", "r": "tv"}
_POSTER_WIDTH = 1280
_POSTER_STEP = 6
# Mean luma (0–255, limited range) below which a frame counts as black.
_BLACK_LUMA = 32


def encode_command(binary: str, plan: EncodePlan, source: Path, list_fds: Sequence[int]) -> list[str]:
    """One process for the whole ladder: one decode, scaling from size to size, every distinct encode once.

    Runs in the work directory, whose `{rendition}/` folders exist. Each rendition's finished segments are told as CSV
    lines `name,start,end` on its file descriptor in `list_fds`.
    """
    opened = _source(plan.container, source, t=plan.max_duration_sec)
    streams: list[Any] = []
    options: dict[str, Any] = {"f": "tee", "map_metadata": -1, "map_chapters": -1, **_KEEP_TIMES}
    if plan.video_index is not None:
        streams += _pictures(opened[str(plan.video_index)], plan)
        options |= _video_options(plan)
    if plan.audio_index is not None:
        streams += _sounds(opened[str(plan.audio_index)], plan)
        options |= {"c:a": "aac"} | {f"b:a:{i}": rate for i, rate in enumerate(plan.audio_tracks)}
    slaves = "|".join(_slave(plan, r, fd) for r, fd in zip(plan.renditions, list_fds, strict=True))
    return _argv(binary, ffmpeg.output(*streams, slaves, **options), *_PROGRESS)


def subtitle_command(binary: str, plan: EncodePlan, index: int, source: Path, target: Path) -> list[str]:
    """One text subtitle stream as a WebVTT file."""
    stream = _source(plan.container, source)[str(index)]
    return _argv(binary, ffmpeg.output(stream, f"file:{target}", f="webvtt", **{"c:s": "webvtt"}))


def poster_command(binary: str, segment: Path, target: Path, *, skip_black: bool) -> list[str]:
    """A JPEG of the most typical frame of one of our own segments."""
    picture = ffmpeg.input(f"file:{segment}", f="mpegts", protocol_whitelist="file")["v:0"]
    # A few frames a second are choice enough.
    picture = picture.filter("framestep", step=_POSTER_STEP)
    if skip_black:
        picture = picture.filter("signalstats").filter(
            "metadata", mode="select", key="lavfi.signalstats.YAVG", value=_BLACK_LUMA, function="greater"
        )
    return _argv(binary, _jpeg(picture.filter("thumbnail", n=60 // _POSTER_STEP), target))


def cover_command(binary: str, plan: EncodePlan, source: Path, target: Path) -> list[str]:
    """The cover art of an audio file as JPEG."""
    return _argv(binary, _jpeg(_source(plan.container, source)[str(plan.cover_index)], target))


def _source(container: str, source: Path, **options: Any) -> Any:
    return ffmpeg.input(
        f"file:{source}",
        f=container,
        protocol_whitelist="file",
        format_whitelist=FORMAT_WHITELIST,
        max_streams=_MAX_STREAMS,
        max_pixels=_MAX_PIXELS,
        **options,
    )


def _argv(binary: str, output: Any, *extra: str) -> list[str]:
    compiled: list[str] = ffmpeg.compile(output, cmd=binary)
    return [binary, *_GLOBAL, *extra, *compiled[1:]]


def _pictures(stream: Any, plan: EncodePlan) -> list[Any]:
    """One filtered stream per video track, each scaled from the next larger one."""
    fixes, top = plan.fixes, plan.video_tracks[0]
    if fixes.deinterlace:
        stream = stream.filter("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    # Both tracks are pinned to time 0 by repetition and silence, which keeps their offset to each other.
    stream = stream.filter("fps", fps=str(plan.fps), start_time=0)
    if fixes.pad_sec:
        stream = stream.filter("tpad", stop_mode="clone", stop_duration=f"{fixes.pad_sec:.6f}")
    stream = _to_bt709(stream, top, fixes).filter("setsar", "1").filter("setparams", **_BT709)
    outputs: list[Any] = []
    for track, smaller in zip(plan.video_tracks, (*plan.video_tracks[1:], None), strict=True):
        if smaller is None:
            outputs.append(stream)
            break
        both = stream.filter_multi_output("split", 2)
        outputs.append(both[0])
        stream = both[1]
        if (smaller.width, smaller.height) != (track.width, track.height):
            stream = stream.filter("scale", smaller.width, smaller.height).filter("setsar", "1")
    return outputs


def _to_bt709(stream: Any, top: VideoTrack, fixes: PictureFixes) -> Any:
    """8-bit 4:2:0 BT.709 limited range at the largest size; scaling comes first where the rest is dear."""
    if fixes.hdr or fixes.wide_gamut:
        transfer = {"pq": "smpte2084", "hlg": "arib-std-b67"}.get(fixes.hdr, "bt2020-10")
        # zimg refuses frames with any tag missing.
        stream = stream.filter("scale", top.width, top.height).filter(
            "setparams", color_primaries="bt2020", color_trc=transfer, colorspace="bt2020nc"
        )
        return (_tonemap(stream) if fixes.hdr else stream.filter("zscale", **_ZIMG_BT709)).filter(
            "format", "yuv420p"
        )
    return stream.filter(
        "scale",
        top.width,
        top.height,
        in_color_matrix=fixes.matrix or "bt709",
        out_color_matrix="bt709",
        in_range="pc" if fixes.full_range else "auto",
        out_range="tv",
    ).filter("format", "yuv420p")


def _tonemap(stream: Any) -> Any:
    return (
        stream.filter("zscale", t="linear", npl=_HDR_WHITE_NITS)
        .filter("format", "gbrpf32le")
        .filter("zscale", p="bt709")
        .filter("tonemap", tonemap="mobius", desat=0)
        .filter("zscale", **_ZIMG_BT709)
    )


def _sounds(stream: Any, plan: EncodePlan) -> list[Any]:
    stream = stream.filter("aresample", _SAMPLE_RATE, **{"async": 1}, first_pts=0)
    stream = stream.filter("aformat", sample_fmts="fltp", channel_layouts="stereo")
    if plan.audio_until_sec is not None:
        stream = stream.filter("apad", whole_dur=f"{plan.audio_until_sec:.6f}")
    count = len(plan.audio_tracks)
    if count == 1:
        return [stream]
    copies = stream.filter_multi_output("asplit", count)
    return [copies[i] for i in range(count)]


def _video_options(plan: EncodePlan) -> dict[str, Any]:
    options: dict[str, Any] = {
        "c:v": "libx264",
        "preset": plan.preset,
        "profile:v": "high",
        "g": plan.gop_frames,
        "keyint_min": plan.gop_frames,
        "sc_threshold": 0,
    }
    for i, track in enumerate(plan.video_tracks):
        options |= {
            f"b:v:{i}": track.bitrate,
            f"maxrate:v:{i}": track.maxrate,
            f"bufsize:v:{i}": track.buffer,
            f"level:v:{i}": track.level,
        }
    return options


def _slave(plan: EncodePlan, rendition: Rendition, fd: int) -> str:
    chosen = [f"v\\:{rendition.video}"] if rendition.video is not None else []
    chosen += [f"a\\:{rendition.audio}"] if rendition.audio is not None else []
    length = plan.segment_sec - (_CUT_SLACK_SEC if plan.fps else 0)
    options = {
        "f": "segment",
        **_KEEP_TIMES,
        "segment_format": "mpegts",
        "segment_format_options": f"'{_TS_OPTIONS}'",
        "segment_time": f"{float(length):.6f}",
        # One muxer for all segments keeps continuity counters and timestamps running (Apple [7.2]).
        "individual_header_trailer": "0",
        "segment_list_type": "csv",
        "segment_list": f"'pipe\\:{fd}'",
        "select": f"'{','.join(chosen)}'",
    }
    return f"[{':'.join(f'{k}={v}' for k, v in options.items())}]{rendition.name}/segment_%03d.ts"


def _jpeg(picture: Any, target: Path) -> Any:
    small = picture.filter("scale", f"min({_POSTER_WIDTH},iw)", "-2").filter("setsar", "1")
    return ffmpeg.output(
        small,
        f"file:{target}",
        f="image2",
        update=1,
        **{"c:v": "mjpeg", "q:v": 3, "frames:v": 1, "pix_fmt": "yuvj420p"},
    )
