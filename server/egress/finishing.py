"""From the parts on disk to the files that are delivered: one for a composition, one for each track in `tracks` mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from server.domain.egress import Egress, FileOutput, FileResult, RoomTracksSource
from server.egress.journal import Footage, Journal, Muxed
from server.egress.names import file_key
from server.egress.uploads import known_facts
from server.ports.recorder import Join, RecordingMuxer, TrackSeen


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A whole file on disk. `started_at` and `ended_at` in ns since 1970; `joins` by number of part."""

    path: Path
    container: str
    duration_ms: int
    joins: tuple[Join, ...]
    started_at: int
    ended_at: int
    track: TrackSeen | None = None

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
    """Raise ValueError when a composition holds no media at all; a track without any is left out."""
    if not isinstance(egress.plan.source, RoomTracksSource):
        return [await _finish_one(journal, muxer, _parts(egress, journal), None)]
    finished = []
    for sid, seen in _tracks(journal.footage).items():
        parts = [(part, journal.folder / track.file) for part, track in seen]
        try:
            finished.append(await _finish_one(journal, muxer, parts, seen[0][1], sid))
        except ValueError:
            continue
    return finished


def file_keys(
    egress: Egress, output: FileOutput, journal: Journal, files: Sequence[FinishedFile]
) -> list[str]:
    """Keys that differ, also where the template would give several tracks the same."""
    facts = known_facts(egress, journal)
    keys: list[str] = []
    for file in files:
        track = file.track
        if track is not None:
            facts = replace(
                facts, track_id=track.sid, track_type=track.media, publisher_identity=track.identity
            )
        key = file_key(output, facts, file.container)
        if track is not None and key in keys:
            path = PurePosixPath(key)
            key = str(path.with_name(f"{path.stem}-{track.sid}{path.suffix}"))
        keys.append(key)
    return keys


def _parts(egress: Egress, journal: Journal) -> list[tuple[int, Path]]:
    outputs, facts = egress.plan.outputs, journal.footage.facts
    container = outputs.files[0].container or (facts.container if facts else "")
    found = []
    for part in journal.footage.parts:
        path = journal.folder / f"part-{part.number:03d}.{container}"
        if path.exists():
            found.append((part.number, path))
    return found


def _tracks(footage: Footage) -> dict[str, list[tuple[int, TrackSeen]]]:
    tracks: dict[str, list[tuple[int, TrackSeen]]] = {}
    for (part, sid), track in sorted(footage.tracks.items()):
        if track.file:
            tracks.setdefault(sid, []).append((part, track))
    return tracks


async def _finish_one(
    journal: Journal,
    muxer: RecordingMuxer,
    parts: Sequence[tuple[int, Path]],
    track: TrackSeen | None,
    sid: str = "",
) -> FinishedFile:
    """What an earlier attempt has made is used again."""
    muxed = journal.footage.muxed.get(sid)
    if muxed is None or not (journal.folder / muxed.file).exists():
        if not parts:
            raise ValueError("there is no part")
        container = parts[0][1].suffix[1:]
        name = f"final{'-' + sid if sid else ''}.{container}"
        done = await muxer.finish([path for _, path in parts], journal.folder / name, container)
        joins = tuple(replace(join, index=parts[join.index][0]) for join in done.joins)
        muxed = Muxed(sid, name, done.duration_ms, joins)
        await journal.add(muxed)
    return _finished(journal, muxed, track)


def _finished(journal: Journal, muxed: Muxed, track: TrackSeen | None) -> FinishedFile:
    footage, joins = journal.footage, muxed.joins
    started_at = footage.part(joins[0].index).started_at if joins else footage.started_at
    last = (
        footage.part(joins[-1].index).started_at + joins[-1].duration_ms * 1_000_000 if joins else started_at
    )
    shift = track.start_ms * 1_000_000 if track else 0
    return FinishedFile(
        path=journal.folder / muxed.file,
        container=muxed.file.rpartition(".")[2],
        duration_ms=muxed.duration_ms,
        joins=joins,
        started_at=started_at + shift,
        ended_at=last + shift,
        track=track,
    )
