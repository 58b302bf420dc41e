"""The media port: look at a source, encode it to segments, take a picture from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.domain.hls import Segment, SubtitleVariant
from server.domain.ladder import EncodePlan
from server.domain.media import MediaInfo


@dataclass(frozen=True, slots=True)
class EncodeProgress:
    """`done_sec` of media encoded; `percent` and `eta_sec` None while the total is unknown; `speed` is media seconds
    per wall second.
    """

    done_sec: float
    percent: float | None
    speed: float | None
    eta_sec: float | None


@dataclass(frozen=True, slots=True)
class EncodedSegment:
    """A complete segment on local disk, ready to be uploaded. `codecs` is what its bitstream really holds."""

    rendition: str
    index: int
    path: Path
    segment: Segment
    codecs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedRendition:
    name: str
    segments: tuple[Segment, ...]
    codecs: tuple[str, ...]

    @property
    def duration_sec(self) -> float:
        return sum(segment.duration_sec for segment in self.segments)


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """`duration_sec` is what was really decoded; `frames` of one rendition; `start_pts` (90 kHz) of media time 0."""

    renditions: tuple[EncodedRendition, ...]
    duration_sec: float
    frames: int
    start_pts: int


@dataclass(frozen=True, slots=True)
class SubtitleTrack:
    """One text subtitle stream as WebVTT segments; `files` are names inside `variant.folder` with their text."""

    variant: SubtitleVariant
    segments: tuple[Segment, ...]
    files: tuple[tuple[str, bytes], ...]


class Encoder(Protocol):
    """All methods raise server.domain.media.MediaError, or OSError when the local disk fails. Cancelling the task
    kills whatever process it started before the cancellation returns.
    """

    async def probe(self, source: Path) -> MediaInfo:
        """UNSUPPORTED_FORMAT for what is no media, TRANSCODE_FAILED for damaged files."""
        ...

    async def encode(
        self,
        plan: EncodePlan,
        source: Path,
        work_dir: Path,
        *,
        on_progress: Callable[[EncodeProgress], None],
        on_segment: Callable[[EncodedSegment], Awaitable[None]],
    ) -> EncodeReport:
        """Writes `work_dir/{rendition}/segment_000.ts` … and awaits `on_segment` for each as it becomes complete: in
        order within a rendition, renditions side by side. An exception from it ends the encode. A source that ends
        early raises TRANSCODE_FAILED saying how far it came.
        """
        ...

    async def subtitles(self, plan: EncodePlan, info: MediaInfo, source: Path) -> tuple[SubtitleTrack, ...]:
        """WebVTT of the text subtitle streams; a stream that cannot be converted is left out."""
        ...

    async def thumbnail(self, plan: EncodePlan, source: Path, work_dir: Path, target: Path) -> bool:
        """Writes a JPEG from the encoded segments in `work_dir` (or the cover art of audio) to `target`; False if there
        is none.
        """
        ...
