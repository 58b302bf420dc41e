"""Manifests: what a recording consists of and how it came about, ours (design section 13) and LiveKit's (2.6)."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.domain.egress import Egress
from server.domain.egress_sources import ParticipantSource, TrackCompositeSource, TrackSource, WebSource
from server.domain.objects import content_type
from server.egress.journal import Footage, Part
from server.ports.recorder import Join, TrackSeen

PAUSED = "PAUSED"
_CLOCKS_APART_MS = 1000


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """One object in place. `key` is whole, `playlist` the location of the playlist that lists a segment, `at` in ns when
    an image was taken.
    """

    key: str
    size: int
    sha256: str
    location: str
    kind: str = "file"
    playlist: str = ""
    at: int = 0


def estimated_joins(footage: Footage) -> tuple[Join, ...]:
    """Where the parts lie without a file that says so: by what their recorders measured."""
    joins, at = [], 0
    for part in footage.parts:
        if part.started_at:
            joins.append(Join(part.number, at, part.duration_ms))
            at += part.duration_ms
    return tuple(joins)


def manifest_key(key: str) -> str:
    """The manifest beside a file or playlist."""
    folder, name = posixpath.split(key)
    return posixpath.join(folder, (name.rpartition(".")[0] or name) + ".manifest.json")


def livekit_manifest_key(key: str, egress_id: str) -> str:
    """In the folder of the file, playlist or images."""
    return posixpath.join(posixpath.dirname(key), f"{egress_id}.json")


def manifest(
    egress: Egress,
    footage: Footage,
    objects: Sequence[ManifestObject],
    joins: Sequence[Join],
    duration_ms: int,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Ours, in REST spelling. `joins` say where each part begins in the file."""
    measured = [part.measured for part in footage.parts if part.measured]
    weight = sum(one.duration_ms for one in measured)
    offset = sum(one.audio_offset_ms * one.duration_ms for one in measured) / weight if weight else 0.0
    return {
        "egressId": egress.id,
        "recordingId": egress.recording_id,
        "objects": [
            {"key": one.key, "size": one.size, "sha256": one.sha256, "contentType": content_type(one.key)}
            for one in objects
        ],
        "durationMs": duration_ms,
        "framesComposed": sum(one.composed for one in measured),
        "framesRepeated": sum(one.repeated for one in measured),
        "framesDropped": sum(one.dropped for one in measured),
        "audioOffsetMs": round(offset, 1),
        "gaps": [*_missing_start(egress, footage), *gaps(footage, joins)],
        "tracks": tracks(footage, joins),
        "versions": dict(versions),
    }


def gaps(footage: Footage, joins: Sequence[Join]) -> list[dict[str, Any]]:
    """What is missing: `startMs` is the position in the file, `durationMs` how much time it lacks there.

    Between two parts that is from the end of what the first really holds to the second's first picture.
    """
    found: list[dict[str, Any]] = []
    parts = {part.number: part for part in footage.parts}
    before: tuple[Part, Join] | None = None
    for join in sorted(joins, key=lambda one: one.at_ms):
        part = parts[join.index]
        if before is not None:
            earlier, place = before
            wall = (part.started_at - earlier.started_at) // 1_000_000
            missing = wall - place.duration_ms - earlier.left_out_ms
            found.append({"startMs": join.at_ms, "durationMs": max(missing, 0), "reason": part.reason})
        found += [
            {
                "startMs": join.at_ms + int(pause["startMs"]),
                "durationMs": int(pause["durationMs"]),
                "reason": str(pause.get("reason", PAUSED)),
            }
            for pause in part.gaps
        ]
        before = part, join
    return sorted(found, key=lambda gap: gap["startMs"])


def _missing_start(egress: Egress, footage: Footage) -> list[dict[str, Any]]:
    """What another host has on its disk: its worker was lost, and this one went on."""
    missing = (footage.started_at - egress.active_at) // 1_000_000
    if not egress.active_at or missing < _CLOCKS_APART_MS:
        return []
    return [{"startMs": 0, "durationMs": missing, "reason": "WORKER_LOST"}]


def tracks(footage: Footage, joins: Sequence[Join]) -> list[dict[str, Any]]:
    """Who took part, in milliseconds of the file; one that ends with its part ends where the part does."""
    places = {join.index: join for join in joins}
    rows = []
    for (part, _, _), track in footage.tracks.items():
        join = places.get(part)
        if join is not None:
            rows.append(_track(track, join))
    return sorted(rows, key=lambda row: (row["startMs"], row["sid"]))


def _track(track: TrackSeen, join: Join) -> dict[str, Any]:
    end = join.duration_ms if track.end_ms is None else min(track.end_ms, join.duration_ms)
    return {
        "sid": track.sid,
        "identity": track.identity,
        "kind": track.media,
        "codec": track.codec,
        "startMs": join.at_ms + min(track.start_ms, end),
        "endMs": join.at_ms + end,
    }


def livekit_manifest(
    egress: Egress, footage: Footage, objects: Sequence[ManifestObject], ended_at: int
) -> bytes:
    """LiveKit's `<egress_id>.json`: compact, without empty keys, one newline at the end."""
    source, facts = egress.plan.source, footage.facts
    values: dict[str, Any] = {
        "egress_id": egress.id,
        "room_id": egress.room_id,
        "room_name": egress.room_name,
        "url": source.url if isinstance(source, WebSource) else "",
        "started_at": footage.started_at,
        "ended_at": ended_at,
        "publisher_identity": source.identity if isinstance(source, ParticipantSource) else "",
    }
    if isinstance(source, TrackSource):
        values |= {
            "track_id": source.track_id,
            "track_kind": facts.track_kind if facts else "",
            "track_source": facts.track_source if facts else "",
        }
    if isinstance(source, TrackCompositeSource):
        values |= {"audio_track_id": source.audio_track_id, "video_track_id": source.video_track_id}
    values |= {
        "files": [_named(one) for one in objects if one.kind == "file"],
        "playlists": _playlists(objects),
        "images": [
            {"filename": one.key, "timestamp": _rfc3339(one.at), "location": one.location}
            for one in objects
            if one.kind == "image"
        ],
    }
    kept = {name: value for name, value in values.items() if value}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _playlists(objects: Sequence[ManifestObject]) -> list[dict[str, Any]]:
    """The main ones; a live playlist names only the last segments, and LiveKit leaves it out."""
    segments: dict[str, list[dict[str, str]]] = {}
    for one in objects:
        if one.kind == "segment":
            segments.setdefault(one.playlist, []).append(_named(one))
    return [{"location": location, "segments": listed} for location, listed in segments.items()]


def _named(one: ManifestObject) -> dict[str, str]:
    return {"filename": one.key, "location": one.location}


def _rfc3339(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
