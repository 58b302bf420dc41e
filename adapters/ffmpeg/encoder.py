"""The Encoder port on FFmpeg processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path

from adapters.ffmpeg import graph
from adapters.ffmpeg.binary import resolve_ffmpeg
from adapters.ffmpeg.failures import failure
from adapters.ffmpeg.poster import make_poster
from adapters.ffmpeg.probe import media_info
from adapters.ffmpeg.process import Files, Heartbeat, Limits, run_guarded
from adapters.ffmpeg.sniff import sniff
from adapters.ffmpeg.subtitles import extract_subtitles
from server.domain.hls import Segment, segment_name
from server.domain.ladder import EncodePlan, Rendition
from server.domain.media import TRANSCODE_FAILED, UNSUPPORTED_FORMAT, MediaError, MediaInfo
from server.domain.mpegts import CLOCK, NotTransportStream, SegmentScan, scan_segment
from server.ports.encoder import EncodedRendition, EncodedSegment, EncodeProgress, EncodeReport, SubtitleTrack

PROBE_TIMEOUT_SEC = 15.0
STALL_TIMEOUT_SEC = 120.0
_PROBE_LIMITS = Limits(address_space=1 << 30, cpu_sec=15, nice=0)
# An AAC encoder's first packet carries this much priming before sample 0.
_AAC_PRIMING_TICKS = 1024 * CLOCK // 48_000
_CLOSE_POLL_SEC = 0.005
_CLOSE_POLLS = 10
_ROOT = Path(__file__).resolve().parents[2]
# What the prober's interpreter must be able to read.
_PYTHON = (Path(sys.prefix), Path(sys.base_prefix), _ROOT / "adapters", _ROOT / "server")

SegmentHandler = Callable[[EncodedSegment], Awaitable[None]]
ProgressHandler = Callable[[EncodeProgress], None]


class FfmpegEncoder:
    """`ffmpeg` overrides the binary that `resolve_ffmpeg` would find."""

    def __init__(self, ffmpeg: str | None = None, *, stall_timeout_sec: float = STALL_TIMEOUT_SEC) -> None:
        self._configured = ffmpeg
        self._stall_timeout_sec = stall_timeout_sec

    async def probe(self, source: Path) -> MediaInfo:
        container = await asyncio.to_thread(sniff, source)
        if container is None:
            raise MediaError(
                UNSUPPORTED_FORMAT, "the source is not a video or audio file of a supported format"
            )
        lines: list[str] = []

        async def keep(line: str) -> None:
            lines.append(line)

        outcome = await run_guarded(
            lambda _fds: (sys.executable, "-m", "adapters.ffmpeg.probe", container, str(source.resolve())),
            cwd=_ROOT,
            files=Files(names=(_ROOT,), read=(source, *_PYTHON)),
            limits=_PROBE_LIMITS,
            wall_timeout_sec=PROBE_TIMEOUT_SEC,
            on_stdout=keep,
        )
        if outcome.stalled:
            raise MediaError(TRANSCODE_FAILED, "the source could not be examined in time")
        if outcome.returncode != 0 or not lines:
            raise MediaError(
                TRANSCODE_FAILED, "the source could not be examined: it needs too much memory or time"
            )
        return media_info(json.loads(lines[-1]))

    async def encode(
        self,
        plan: EncodePlan,
        source: Path,
        work_dir: Path,
        *,
        on_progress: ProgressHandler,
        on_segment: SegmentHandler,
    ) -> EncodeReport:
        binary = resolve_ffmpeg(self._configured)
        for rendition in plan.renditions:
            _empty_folder(work_dir / rendition.name)
        heartbeat = Heartbeat()
        progress = _ProgressReader(plan, heartbeat, on_progress)
        collectors = [
            _Collector(plan, rendition, work_dir, heartbeat, on_segment) for rendition in plan.renditions
        ]
        outcome = await run_guarded(
            lambda fds: graph.encode_command(binary, plan, source.resolve(), fds),
            cwd=work_dir,
            files=Files(read=(source,), write=(work_dir,)),
            limits=_encode_limits(plan),
            stall_timeout_sec=self._stall_timeout_sec,
            heartbeat=heartbeat,
            on_stdout=progress.line,
            on_pipes=[collector.line for collector in collectors],
        )
        if outcome.returncode != 0 or outcome.stalled:
            raise failure(outcome, done_sec=min(collector.duration_sec for collector in collectors))
        for collector in collectors:
            await collector.finish()
        _check_complete(plan, max(collector.end_sec for collector in collectors))
        return EncodeReport(
            renditions=tuple(collector.report() for collector in collectors),
            duration_sec=min(collector.duration_sec for collector in collectors),
            frames=progress.frames,
            start_pts=collectors[0].start_pts,
        )

    async def subtitles(self, plan: EncodePlan, info: MediaInfo, source: Path) -> tuple[SubtitleTrack, ...]:
        if not plan.subtitle_indexes:
            return ()
        return await extract_subtitles(resolve_ffmpeg(self._configured), plan, info, source)

    async def thumbnail(self, plan: EncodePlan, source: Path, work_dir: Path, target: Path) -> bool:
        return await make_poster(resolve_ffmpeg(self._configured), plan, source, work_dir, target)


class _ProgressReader:
    """Reads FFmpeg's `-progress` blocks."""

    def __init__(self, plan: EncodePlan, heartbeat: Heartbeat, on_progress: ProgressHandler) -> None:
        self._expected = plan.expected_sec
        self._heartbeat = heartbeat
        self._on_progress = on_progress
        self._values: dict[str, str] = {}
        self._done_sec = 0.0
        self.frames = 0

    async def line(self, line: str) -> None:
        key, _, value = line.partition("=")
        self._values[key.strip()] = value.strip()
        if key == "progress":
            self._report()

    def _report(self) -> None:
        self.frames = int(self._values.get("frame", "0"))
        done = _number(self._values.get("out_time_us"))
        if done is not None and done / 1e6 > self._done_sec:
            self._done_sec = done / 1e6
            self._heartbeat.touch()
        speed = _number(self._values.get("speed", "").rstrip("x"))
        percent = eta = None
        if self._expected:
            percent = min(100.0, 100.0 * self._done_sec / self._expected)
            eta = max(0.0, self._expected - self._done_sec) / speed if speed else None
        self._on_progress(EncodeProgress(self._done_sec, percent, speed, eta))


class _Collector:
    """Follows one rendition's segment list, measures each finished file and hands it on."""

    def __init__(
        self,
        plan: EncodePlan,
        rendition: Rendition,
        work_dir: Path,
        heartbeat: Heartbeat,
        on_segment: SegmentHandler,
    ) -> None:
        self._plan = plan
        self._name = rendition.name
        self._folder = work_dir / rendition.name
        self._heartbeat = heartbeat
        self._on_segment = on_segment
        self._listed: str | None = None
        self._segments: list[Segment] = []
        self._codecs: tuple[str, ...] = ()
        self.start_pts = 0
        self.end_sec = 0.0

    @property
    def duration_sec(self) -> float:
        return sum(segment.duration_sec for segment in self._segments)

    async def line(self, line: str) -> None:
        """Takes `segment_000.ts,0.000000,2.000000`: start and end in seconds of the packets inside.

        The muxer lists a segment just before it writes the last buffer and closes the file; only the next file's
        existence, the next line or the end of the process prove that it is whole.
        """
        await self.finish()
        self._listed = line
        following = self._folder / segment_name(len(self._segments) + 1)
        for _ in range(_CLOSE_POLLS):
            if following.exists():
                await self.finish()
                return
            await asyncio.sleep(_CLOSE_POLL_SEC)

    async def finish(self) -> None:
        """Hands on the segment that was listed last."""
        if self._listed is None:
            return
        name, start, end = self._listed.rsplit(",", 2)
        self._listed = None
        index = len(self._segments)
        path = self._folder / segment_name(index)
        if name != path.name:
            raise MediaError(
                TRANSCODE_FAILED, f"the encoder wrote {name} where {path.name} was due", retryable=True
            )
        self._heartbeat.touch()
        size, scan = await asyncio.to_thread(_measure, path)
        if index == 0:
            self._codecs = scan.codecs
            self.start_pts = _start_pts(scan)
        duration = self._length(scan, float(end) - float(start))
        segment = Segment(path.name, duration, size)
        self._segments.append(segment)
        self.end_sec = float(end) if self._plan.audio_until_sec is None else self.duration_sec
        await self._on_segment(EncodedSegment(self._name, index, path, segment, self._codecs))

    def report(self) -> EncodedRendition:
        return EncodedRendition(self._name, tuple(self._segments), self._codecs)

    def _length(self, scan: SegmentScan, listed_sec: float) -> float:
        fps = self._plan.fps
        if fps is None or scan.video_first_pts is None:
            return listed_sec
        pictures = scan.video_frames / fps
        if scan.audio_end_pts is not None and self._plan.audio_until_sec is None:
            # Only the last segment's sound can outlast its pictures by more than the muxer's interleaving.
            sound = Fraction(scan.audio_end_pts - scan.video_first_pts, CLOCK)
            pictures = sound if sound > pictures + 1 else pictures
        return float(pictures)


def _empty_folder(folder: Path) -> None:
    """Segments of an earlier attempt would look like finished ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("segment_*.ts"):
        stale.unlink()


def _measure(path: Path) -> tuple[int, SegmentScan]:
    data = path.read_bytes()
    try:
        return len(data), scan_segment(data)
    except NotTransportStream as error:
        raise MediaError(
            TRANSCODE_FAILED, f"the encoder wrote a broken segment: {error}", retryable=True
        ) from error


def _start_pts(scan: SegmentScan) -> int:
    if scan.video_first_pts is not None:
        return scan.video_first_pts
    return (scan.audio_first_pts or 0) + _AAC_PRIMING_TICKS


def _check_complete(plan: EncodePlan, end_sec: float) -> None:
    """A damaged source ends FFmpeg with status 0; only the length tells."""
    if end_sec <= 0:
        raise MediaError(TRANSCODE_FAILED, "the source holds no picture or sound that can be decoded")
    expected = plan.expected_sec
    if expected is not None and plan.expected_exact and expected - end_sec > max(1.0, 0.02 * expected):
        raise MediaError(
            TRANSCODE_FAILED, f"the source ends early: {end_sec:.1f} s of {expected:.1f} s could be decoded"
        )


def _encode_limits(plan: EncodePlan) -> Limits:
    """Far above what any honest source needs: the last bound for those that never end."""
    length = plan.expected_sec if plan.expected_sec and plan.expected_exact else plan.max_duration_sec
    megapixels = sum(track.width * track.height for track in plan.video_tracks) / 1e6
    rate = sum(track.maxrate for track in plan.video_tracks) + sum(plan.audio_tracks)
    return Limits(
        cpu_sec=int(900 + length * (2 + 60 * megapixels)),
        file_size=int(64 * 2**20 + rate * float(plan.segment_sec)),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
