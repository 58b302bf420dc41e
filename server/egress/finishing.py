"""From what lies on disk to the files that are delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from server.domain.egress import Egress, FileOutput, FileResult
from server.domain.egress_sources import RoomTracksSource
from server.egress.journal import Journal, Muxed
from server.egress.names import file_key
from server.egress.uploads import known_facts
from server.ports.recorder import Join, RecordingMuxer

# What a recorder of all tracks writes: the tracks as they came, and what happened when.
_TRACK_FILES = ("track-*.*", "timeline-*.json")


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A whole file on disk. `started_at` and `ended_at` in ns since 1970; `joins` by number of part.

    `container` is "" where the file keeps its name.
    """

    path: Path
    container: str
    duration_ms: int
    started_at: int
    ended_at: int
    joins: tuple[Join, ...] = ()

    def result(self, key: str, size: int, location: str) -> FileResult:
        return FileResult(
            filename=key,
            started_at=self.started_at,
            ended_at=self.ended_at,
            duration=self.duration_ms * 1_000_000,
            size=size,
            location=location,
        )


async def finish_files(egress: Egress, journal: Journal, muxer: RecordingMuxer) -> list[FinishedFile]:
    """One for a composition; in `tracks` mode all that was written, as it is. Raise ValueError when there is no media."""
    if isinstance(egress.plan.source, RoomTracksSource):
        return await asyncio.to_thread(_track_files, journal)
    muxed = journal.footage.muxed
    if muxed is None or not (journal.folder / muxed.file).exists():
        muxed = await _join(egress, journal, muxer)
    return [_joined(journal, muxed)]


def key_of(egress: Egress, output: FileOutput, journal: Journal, file: FinishedFile) -> str:
    """Where the file goes."""
    if not file.container:
        return f"{output.path.rstrip('/')}/{file.path.name}"
    return file_key(output, known_facts(egress, journal), file.container)


async def _join(egress: Egress, journal: Journal, muxer: RecordingMuxer) -> Muxed:
    parts = _parts(egress, journal)
    if not parts:
        raise ValueError("there is no part")
    container = parts[0][1].suffix[1:]
    name = f"final.{container}"
    done = await muxer.finish([path for _, path in parts], journal.folder / name, container)
    joins = tuple(replace(join, index=parts[join.index][0]) for join in done.joins)
    muxed = Muxed(name, done.duration_ms, joins)
    await journal.add(muxed)
    return muxed


def _parts(egress: Egress, journal: Journal) -> Sequence[tuple[int, Path]]:
    facts = journal.footage.facts
    container = egress.plan.outputs.files[0].container or (facts.container if facts else "")
    paths = (
        (part.number, journal.folder / f"part-{part.number:03d}.{container}")
        for part in journal.footage.parts
    )
    return [(number, path) for number, path in paths if path.exists()]


def _joined(journal: Journal, muxed: Muxed) -> FinishedFile:
    footage, joins = journal.footage, muxed.joins
    started_at = footage.started_at
    ended_at = started_at + muxed.duration_ms * 1_000_000
    if joins:
        started_at = footage.part(joins[0].index).started_at
        last = footage.part(joins[-1].index)
        ended_at = last.started_at + (joins[-1].duration_ms + last.left_out_ms) * 1_000_000
    return FinishedFile(
        path=journal.folder / muxed.file,
        container=muxed.file.rpartition(".")[2],
        duration_ms=muxed.duration_ms,
        started_at=started_at,
        ended_at=ended_at,
        joins=joins,
    )


def _track_files(journal: Journal) -> list[FinishedFile]:
    footage = journal.footage
    seen = {track.file: (footage.part(part), track) for (part, _, _), track in footage.tracks.items()}
    files = []
    for path in sorted(path for pattern in _TRACK_FILES for path in journal.folder.glob(pattern)):
        if path.name not in seen:
            files.append(FinishedFile(path, "", 0, footage.started_at, footage.started_at))
            continue
        part, track = seen[path.name]
        end_ms = part.duration_ms if track.end_ms is None else track.end_ms
        started_at = part.started_at + track.start_ms * 1_000_000
        length = max(end_ms - track.start_ms, 0)
        files.append(FinishedFile(path, "", length, started_at, started_at + length * 1_000_000))
    if not files:
        raise ValueError("there is no track")
    return files
