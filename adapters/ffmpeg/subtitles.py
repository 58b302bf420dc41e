"""Text subtitles of a source as segmented WebVTT tracks."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from adapters.ffmpeg import graph
from adapters.ffmpeg.process import Files, Limits, run_guarded
from server.domain.hls import START_PTS, Segment, SubtitleVariant
from server.domain.ladder import EncodePlan
from server.domain.media import MediaInfo, SubtitleStream
from server.domain.webvtt import Cue, cut_cues, language_tag, parse_cues
from server.ports.encoder import SubtitleTrack

# For all of a source's text streams together: every one of them means reading the whole source again.
TIMEOUT_SEC = 600.0
MAX_STREAMS = 16
# Subtitles are tiny; cutting them as finely as the video would only cost requests.
SEGMENT_SEC = 60.0
_FILE_SIZE = 32 * 2**20


async def extract_subtitles(
    binary: str, plan: EncodePlan, info: MediaInfo, source: Path, *, timeout_sec: float = TIMEOUT_SEC
) -> tuple[SubtitleTrack, ...]:
    """Each text stream that FFmpeg can turn into cues; others are left out.

    So are those beyond the first MAX_STREAMS, and those that are not done `timeout_sec` after the start of the first.
    """
    streams = [stream for stream in info.subtitles if stream.index in plan.subtitle_indexes]
    tracks: list[SubtitleTrack] = []
    taken: set[str] = set()
    clock = asyncio.get_running_loop()
    deadline = clock.time() + timeout_sec
    with tempfile.TemporaryDirectory(prefix="subtitles-") as folder:
        for stream in streams[:MAX_STREAMS]:
            left = deadline - clock.time()
            if left <= 0:
                break
            cues = await _read_cues(binary, plan, stream.index, source.resolve(), Path(folder), left)
            if cues:
                tracks.append(_track(plan, stream, cues, taken))
    return tuple(tracks)


async def _read_cues(
    binary: str, plan: EncodePlan, index: int, source: Path, folder: Path, timeout_sec: float
) -> Sequence[Cue]:
    target = folder / f"{index}.vtt"
    outcome = await run_guarded(
        lambda _fds: graph.subtitle_command(binary, plan, index, source, target),
        cwd=folder,
        files=Files(read=(source,), write=(folder,)),
        limits=Limits(file_size=_FILE_SIZE, cpu_sec=math.ceil(timeout_sec)),
        wall_timeout_sec=timeout_sec,
    )
    # A track that stops in the middle is worse than none.
    if outcome.stalled or not target.exists():
        return ()
    return parse_cues(target.read_text("utf-8", "replace"))


def _track(plan: EncodePlan, stream: SubtitleStream, cues: Sequence[Cue], taken: set[str]) -> SubtitleTrack:
    language = language_tag(stream.language)
    name = language if language != "und" else str(stream.index)
    if name in taken:
        name = f"{name}-{stream.index}"
    taken.add(name)
    length = float(plan.segment_sec * max(1, math.floor(SEGMENT_SEC / plan.segment_sec)))
    pieces = cut_cues(
        cues, length_sec=length, total_sec=plan.expected_sec or cues[-1].end_sec, start_pts=START_PTS
    )
    files = tuple((f"segment_{i:03d}.vtt", text.encode()) for i, (text, _) in enumerate(pieces))
    return SubtitleTrack(
        variant=SubtitleVariant(
            folder=f"subtitles/{name}",
            language=language,
            name=" ".join(stream.title.split())[:100] or name,
            default=stream.default,
            forced=stream.forced,
        ),
        segments=tuple(
            Segment(file_name, duration, len(data))
            for (file_name, data), (_, duration) in zip(files, pieces, strict=True)
        ),
        files=files,
    )
