"""The timeline beside recorded tracks: what happened when, one JSON object a line, whole up to the last line at any moment.

Times (`at`) are ns since 1970 by this host, but those of `clock` lines, which are by the clock that all tracks of the server
share; `position` and `duration` are ns of a file. Reading puts everything on one clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


class TimelineWriter:
    """Appends events. `synced` gives a descriptor to sync and close, None when nothing is new."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._dirty = False

    def add(self, event: str, at_ns: int, **facts: Any) -> None:
        line = json.dumps({"at": at_ns, "event": event, **facts}, separators=(",", ":"), ensure_ascii=False)
        os.write(self._descriptor, line.encode() + b"\n")
        self._dirty = True

    def synced(self) -> int | None:
        if not self._dirty:
            return None
        self._dirty = False
        return os.dup(self._descriptor)

    def close(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)


# --- reading


@dataclass(slots=True)
class Stretch:
    """From `position` (ns of the file) on the file runs evenly; that position was at `at_ns` since 1970."""

    position: int
    at_ns: int


@dataclass(slots=True)
class RecordedFile:
    """One file of a track. `duration` in ns, 0 where the recorder died before it could tell."""

    file: str
    sid: str
    codec: str
    stretches: list[Stretch]
    duration: int = 0

    @property
    def start_ns(self) -> int:
        return self.stretches[0].at_ns if self.stretches else 0


@dataclass(slots=True)
class RecordedTrack:
    """One published track. `muted` are the moments at which it became muted or, False, unmuted."""

    sid: str
    identity: str
    name: str
    kind: str
    source: str
    codec: str
    width: int
    height: int
    start_ns: int
    end_ns: int = 0
    muted: list[tuple[int, bool]] = field(default_factory=list)
    files: list[RecordedFile] = field(default_factory=list)


@dataclass(slots=True)
class Presence:
    """One stay of a participant; `end_ns` 0: until the end."""

    identity: str
    name: str
    kind: str
    start_ns: int
    end_ns: int = 0
    joined_at_ms: int = 0


@dataclass(slots=True)
class RecordedRoom:
    """Everything that is known of a recorded part of a room, in the order in which it happened.

    `speaking` holds levels (0–1) by identity from a moment on; `pauses` are pairs of moments between which
    nothing is to be shown, also where one part ended and the next had not begun; `gaps` are lost connections.
    """

    people: list[Presence] = field(default_factory=list)
    tracks: dict[str, RecordedTrack] = field(default_factory=dict)
    speaking: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    pauses: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    start_ns: int = 0
    end_ns: int = 0

    @property
    def files(self) -> list[RecordedFile]:
        return [file for track in self.tracks.values() for file in track.files]


def read_timelines(folder: Path) -> RecordedRoom:
    """All parts of a recording as one. A torn last line is left out. Raise FileNotFoundError when there is none."""
    paths = sorted(folder.glob("timeline-*.json"))
    if not paths:
        raise FileNotFoundError(f"no timeline in {folder.name}")
    room = RecordedRoom()
    for path in paths:
        _Part(room).read(_lines(path))
    return room


def _lines(path: Path) -> Iterable[Mapping[str, Any]]:
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # The recorder died while it wrote this.
            return


class _Part:
    """Reads one part; what it leaves open ends with its last event."""

    def __init__(self, room: RecordedRoom) -> None:
        self._room = room
        self._files: dict[str, RecordedFile] = {}
        self._here: dict[str, Presence] = {}
        self._readings: dict[str, list[tuple[int, int]]] = {}
        self._open_pause = 0
        self._open_gap = 0

    def read(self, lines: Iterable[Mapping[str, Any]]) -> None:
        before = last = self._room.end_ns
        for line in lines:
            at = int(line["at"])
            if line["event"] != "clock":
                self._room.start_ns = self._room.start_ns or at
                last = max(last, at)
            if before and line["event"] == "file":
                self._room.pauses.append((before, at))
                before = 0
            handler = getattr(self, f"_on_{line['event']}", None)
            if handler is not None:
                handler(at, line)
        self._close(last)
        self._set_clocks()

    def _close(self, last: int) -> None:
        room = self._room
        for stay in self._here.values():
            stay.end_ns = last
        for track in room.tracks.values():
            track.end_ns = track.end_ns or last
        if self._open_pause:
            room.pauses.append((self._open_pause, last))
        if self._open_gap:
            room.gaps.append((self._open_gap, last))
        room.end_ns = max(room.end_ns, last)

    def _set_clocks(self) -> None:
        """Moves arrivals to the common clock: by a file's own sender reports, else by how far the others' lie apart."""
        shifts = {}
        for name, readings in self._readings.items():
            stretches = self._files[name].stretches
            for index, stretch in enumerate(stretches):
                until = stretches[index + 1].position if index + 1 < len(stretches) else None
                own = [
                    at - (position - stretch.position) - stretch.at_ns
                    for position, at in readings
                    if (index == 0 or position >= stretch.position) and (until is None or position < until)
                ]
                if own:
                    shifts[name, index] = int(median(own))
        usual = int(median(shifts.values())) if shifts else 0
        # What happened was noted by this host's clock; files are moved to it, apart from one another by their own.
        for name, file in self._files.items():
            for index, stretch in enumerate(file.stretches):
                stretch.at_ns += shifts.get((name, index), usual) - usual

    def _on_arrived(self, at: int, line: Mapping[str, Any]) -> None:
        stay = Presence(line["identity"], line["name"], line["kind"], at, joined_at_ms=line["joined_at_ms"])
        self._here[stay.identity] = stay
        self._room.people.append(stay)

    def _on_left(self, at: int, line: Mapping[str, Any]) -> None:
        stay = self._here.pop(line["identity"], None)
        if stay is not None:
            stay.end_ns = at

    def _on_published(self, at: int, line: Mapping[str, Any]) -> None:
        known = self._room.tracks.get(line["sid"])
        if known is not None:
            known.end_ns = 0
            known.muted.append((at, line["muted"]))
            return
        names = ("sid", "identity", "name", "kind", "source", "codec", "width", "height")
        track = RecordedTrack(**{name: line[name] for name in names}, start_ns=at)
        track.muted.append((at, line["muted"]))
        self._room.tracks[track.sid] = track

    def _on_changed(self, at: int, line: Mapping[str, Any]) -> None:
        track = self._room.tracks[line["sid"]]
        if track.muted[-1][1] != line["muted"]:
            track.muted.append((at, line["muted"]))

    def _on_unpublished(self, at: int, line: Mapping[str, Any]) -> None:
        self._room.tracks[line["sid"]].end_ns = at

    def _on_file(self, at: int, line: Mapping[str, Any]) -> None:
        file = RecordedFile(line["file"], line["sid"], line["codec"], [])
        self._files[file.file] = file
        self._room.tracks[file.sid].files.append(file)

    def _on_stretch(self, at: int, line: Mapping[str, Any]) -> None:
        self._files[line["file"]].stretches.append(Stretch(line["position"], at))

    def _on_clock(self, at: int, line: Mapping[str, Any]) -> None:
        self._readings.setdefault(line["file"], []).append((line["position"], at))

    def _on_file_end(self, at: int, line: Mapping[str, Any]) -> None:
        self._files[line["file"]].duration = line["duration"]

    def _on_speaking(self, at: int, line: Mapping[str, Any]) -> None:
        self._room.speaking.append((at, dict(line["levels"])))

    def _on_paused(self, at: int, line: Mapping[str, Any]) -> None:
        self._open_pause = at

    def _on_resumed(self, at: int, line: Mapping[str, Any]) -> None:
        self._room.pauses.append((self._open_pause, at))
        self._open_pause = 0

    def _on_interrupted(self, at: int, line: Mapping[str, Any]) -> None:
        self._open_gap = at

    def _on_joined(self, at: int, line: Mapping[str, Any]) -> None:
        if self._open_gap:
            self._room.gaps.append((self._open_gap, at))
            self._open_gap = 0
