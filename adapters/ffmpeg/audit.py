"""The full check of a finished ladder: every segment is opened with PyAV and measured against what is announced."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.domain.hls_audit import (
    RATE_TOLERANCE,
    Finding,
    MediaPlaylist,
    Reader,
    Report,
    StreamInf,
    parse_master,
    read_playlists,
    scan_object,
)
from server.domain.mpegts import CLOCK

if TYPE_CHECKING:
    from av.container import InputContainer

# The largest span that a 90 kHz time stamp may stray from the frame grid by rounding.
_TICK_SLACK = 2
_AAC_FRAME_TICKS = 1024 * CLOCK // 44_100


@dataclass(frozen=True, slots=True)
class MeasuredSegment:
    """What PyAV sees: PTS in 90 kHz ticks in presentation order; size in bytes."""

    key: str
    size: int
    video_pts: tuple[int, ...]
    key_pts: tuple[int, ...]
    audio_pts: tuple[int, ...]
    codecs: tuple[str, ...]
    width: int
    height: int


def directory_reader(folder: Path) -> Reader:
    """Objects as files below `folder`."""
    return lambda key: (folder / key).read_bytes()


def audit(read: Reader, *, renditions: Sequence[str]) -> list[Finding]:
    """All that issue section 5 lists; [] when everything holds. `read` as for `quick_audit`."""
    report = Report()
    playlists = read_playlists(read, report, renditions=renditions)
    if report.findings:
        return report.findings
    variants = {v.folder: v for v in parse_master(read("master.m3u8").decode()).variants}
    measured: dict[str, list[MeasuredSegment]] = {}
    for folder, playlist in playlists.items():
        found = [_measure(read, report, f"{folder}/{name}") for name, _ in playlist.segments]
        measured[folder] = [segment for segment in found if segment is not None]
    if report.findings:
        # What is missing or broken would only be told again in other words.
        return report.findings
    for folder, segments in measured.items():
        _check_rates(report, variants[folder], playlists[folder], segments)
        _check_streams(report, variants[folder], segments)
        if segments[0].video_pts:
            _check_times(report, variants[folder], playlists[folder], segments)
    _check_alignment(report, measured)
    return report.findings


def _measure(read: Reader, report: Report, key: str) -> MeasuredSegment | None:
    import av

    scan = scan_object(read, report, key)
    if scan is None:
        return None
    data = read(key)
    pts: dict[str, list[int]] = {"video": [], "key": [], "audio": []}
    width = height = 0
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        for packet in container.demux():
            kind = packet.stream.type
            if packet.pts is not None and kind in pts:
                pts[kind].append(packet.pts)
                if kind == "video" and packet.is_keyframe:
                    pts["key"].append(packet.pts)
        for stream in container.streams.video:
            width, height = stream.codec_context.width, stream.codec_context.height
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        _check_picture(report, key, container)
    return MeasuredSegment(
        key=key,
        size=len(data),
        video_pts=tuple(sorted(pts["video"])),
        key_pts=tuple(sorted(pts["key"])),
        audio_pts=tuple(sorted(pts["audio"])),
        codecs=scan.codecs,
        width=width,
        height=height,
    )


def _check_picture(report: Report, key: str, container: InputContainer) -> None:
    """The first frame decodes from the segment alone, in the one format that we promise."""
    import av

    if not container.streams.video:
        return
    stream = container.streams.video[0]
    try:
        frame = next(container.decode(stream), None)
    except av.FFmpegError:
        frame = None
    if frame is None:
        report.findings.append(Finding(key, "no picture can be decoded from it alone"))
        return
    report.check(frame.format.name == "yuv420p", key, f"pixel format {frame.format.name}")
    report.check(not frame.interlaced_frame, key, "is interlaced")
    report.check((stream.sample_aspect_ratio or 1) == 1, key, f"sample aspect {stream.sample_aspect_ratio}")
    colour = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), int(frame.color_range))
    report.check(colour == (1, 1, 1, 1), key, f"is not tagged BT.709 limited range: {colour}")


def _check_rates(
    report: Report, variant: StreamInf, playlist: MediaPlaylist, segments: Sequence[MeasuredSegment]
) -> None:
    """Announced against measured, both within 10 % [1.26, 1.27, 9.13, 9.14]."""
    durations = [duration for _, duration in playlist.segments]
    target = playlist.target_duration
    average = sum(segment.size for segment in segments) * 8 / sum(durations)
    rates = [
        sum(s.size for s in segments[a:b]) * 8 / sum(durations[a:b])
        for a in range(len(segments))
        for b in range(a + 1, min(len(segments), a + 4) + 1)
        if 0.5 * target <= sum(durations[a:b]) <= 1.5 * target
    ]
    for name, truth in (("BANDWIDTH", max([average, *rates])), ("AVERAGE-BANDWIDTH", average)):
        told = variant.number(name)
        near = abs(told - truth) <= RATE_TOLERANCE * truth
        report.check(near, variant.uri, f"{name} {told:.0f} announced, {truth:.0f} measured")


def _check_streams(report: Report, variant: StreamInf, segments: Sequence[MeasuredSegment]) -> None:
    told = tuple(variant.attributes.get("CODECS", "").split(","))
    for segment in segments:
        report.check(segment.codecs == told, segment.key, f"holds {segment.codecs}, announced are {told}")
        if segment.video_pts:
            size = f"{segment.width}x{segment.height}"
            report.check(variant.attributes.get("RESOLUTION") == size, segment.key, f"is {size}")
            report.check(segment.width % 2 == 0 and segment.height % 2 == 0, segment.key, f"{size} is odd")


def _check_times(
    report: Report, variant: StreamInf, playlist: MediaPlaylist, segments: Sequence[MeasuredSegment]
) -> None:
    """Frame grid without gaps [7.2], EXTINF of each segment and their sum within a frame of the truth [8.1]."""
    step = CLOCK / variant.number("FRAME-RATE")
    truth = 0.0
    for number, (segment, (_, told)) in enumerate(zip(segments, playlist.segments, strict=True)):
        pts = segment.video_pts
        report.check(pts[0] in segment.key_pts, segment.key, "its first picture is no key frame [7.4]")
        gaps = {b - a for a, b in itertools.pairwise(pts)}
        odd = [gap for gap in gaps if abs(gap - step) > _TICK_SLACK]
        report.check(not odd, segment.key, f"frame distances {sorted(odd)} instead of {step:.1f} ticks")
        last = number + 1 == len(segments)
        end = pts[-1] + step if last else segments[number + 1].video_pts[0]
        length = (end - pts[0]) / CLOCK
        truth += length
        if not last:
            joint = end - pts[-1]
            report.check(abs(joint - step) <= _TICK_SLACK, segment.key, f"{joint} ticks to the next segment")
            report.check(abs(told - length) < 0.002, segment.key, f"EXTINF {told}, really {length:.6f}")
    off = abs(truth - playlist.duration_sec)
    report.check(off <= step / CLOCK + 0.001, variant.uri, f"EXTINF sum is {off:.3f} s off [8.1]")


def _check_alignment(report: Report, measured: dict[str, list[MeasuredSegment]]) -> None:
    """The same IDRs, segment starts and lengths in every rendition [8.22]."""
    reference_name, reference = next(iter(measured.items()))
    for folder, segments in measured.items():
        report.check(len(segments) == len(reference), folder, f"not as many segments as {reference_name}")
        for mine, theirs in zip(segments, reference, strict=False):
            if mine.video_pts:
                aligned = mine.key_pts == theirs.key_pts and mine.video_pts[-1] == theirs.video_pts[-1]
                report.check(aligned, mine.key, f"IDRs or end differ from {theirs.key} [8.22]")
            elif mine.audio_pts and theirs.audio_pts:
                off = abs(mine.audio_pts[0] - theirs.audio_pts[0])
                report.check(off <= _AAC_FRAME_TICKS, mine.key, f"starts {off} ticks off {theirs.key}")
