"""From a source file to an audited ladder on disk, as the pipeline does it but without storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from adapters.ffmpeg.audit import audit, directory_reader
from adapters.ffmpeg.encoder import FfmpegEncoder
from server.domain.hls import master_playlist, measured_variant, media_playlist
from server.domain.hls_audit import Finding
from server.domain.ladder import ConversionSettings, EncodePlan, plan_encode
from server.domain.media import MediaInfo
from server.ports.encoder import EncodedSegment, EncodeProgress, EncodeReport, SubtitleTrack


@dataclass
class Ladder:
    """A finished encode below `folder`."""

    folder: Path
    info: MediaInfo
    plan: EncodePlan
    report: EncodeReport
    subtitles: tuple[SubtitleTrack, ...]
    handed_on: list[EncodedSegment] = field(default_factory=list)
    progress: list[EncodeProgress] = field(default_factory=list)

    def audit(self) -> list[Finding]:
        return audit(directory_reader(self.folder), renditions=[r.name for r in self.plan.renditions])

    def lengths(self, rendition: int = 0) -> list[float]:
        return [round(s.duration_sec, 3) for s in self.report.renditions[rendition].segments]

    def stream(self, rendition: str) -> BytesIO:
        """All segments of a rendition in a row."""
        files = sorted((self.folder / rendition).glob("segment_*.ts"))
        return BytesIO(b"".join(file.read_bytes() for file in files))

    def picture(self, rendition: str, *, number: int = 20) -> NDArray[np.uint8]:
        """One decoded frame as RGB (height, width, 3)."""
        with av.open(self.stream(rendition), "r", format="mpegts") as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index == number:
                    return frame.to_ndarray(format="rgb24").astype(np.uint8)
        raise AssertionError(f"{rendition} has no frame {number}")

    def sound(self, rendition: str) -> tuple[NDArray[np.float32], float]:
        """(samples of the left channel at 48 kHz, their start in seconds after media time 0)."""
        pieces: list[NDArray[np.float32]] = []
        start = 0.0
        with av.open(self.stream(rendition), "r", format="mpegts") as container:
            for frame in container.decode(audio=0):
                if not pieces:
                    start = float((frame.pts or 0) * (frame.time_base or 0)) - self.report.start_pts / 90_000
                pieces.append(frame.to_ndarray()[0])
        return np.concatenate(pieces), start


async def make_ladder(
    source: Path,
    folder: Path,
    *,
    formats: tuple[str, ...] = ("360p", "480p"),
    hls_time: float = 2,
    encoder: FfmpegEncoder | None = None,
) -> Ladder:
    """Probe, plan, encode, subtitles and playlists."""
    encoder = encoder or FfmpegEncoder()
    info = await encoder.probe(source)
    plan = plan_encode(info, ConversionSettings(formats, "ultrafast", Fraction(hls_time)))
    handed_on: list[EncodedSegment] = []
    progress: list[EncodeProgress] = []

    async def take(segment: EncodedSegment) -> None:
        assert segment.path.stat().st_size == segment.segment.size
        handed_on.append(segment)

    report = await encoder.encode(plan, source, folder, on_progress=progress.append, on_segment=take)
    subtitles = await encoder.subtitles(plan, info, source)
    for track in subtitles:
        home = folder / track.variant.folder
        home.mkdir(parents=True)
        for name, data in track.files:
            (home / name).write_bytes(data)
        text = media_playlist(track.segments, target_duration=plan.target_duration, ended=True)
        (home / "playlist.m3u8").write_text(text)
    variants = []
    for rendition, encoded in zip(plan.renditions, report.renditions, strict=True):
        text = media_playlist(encoded.segments, target_duration=plan.target_duration, ended=True)
        (folder / rendition.name / "playlist.m3u8").write_text(text)
        variants.append(measured_variant(plan, rendition, encoded.codecs, encoded.segments))
    (folder / "master.m3u8").write_text(master_playlist(variants, [track.variant for track in subtitles]))
    return Ladder(folder, info, plan, report, subtitles, handed_on, progress)
