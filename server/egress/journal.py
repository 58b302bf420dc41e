"""What one egress has on this machine's disk: a folder with its parts, and a journal of how they came about."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from server.domain.json_form import from_json, to_json
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    ImageWritten,
    Join,
    Joined,
    Measured,
    SegmentWritten,
    TrackSeen,
)

JOURNAL_NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class PartBegun:
    """`reason` is why there had to be another part: `RECORDER_LOST`, `WORKER_LOST`, …; "" for the first."""

    KIND: ClassVar[str] = "part"
    part: int
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Reported:
    """What the recorder of a part said and a later owner must know."""

    KIND: ClassVar[str] = "report"
    part: int
    report: Joined | Active | SegmentWritten | ImageWritten | TrackSeen | Measured | Ended | Broke


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment or image is in place at its destination, or with an empty `key` gone for good.

    `number` counts over all parts, from 0.
    """

    KIND: ClassVar[str] = "stored"
    media: str
    output: int
    number: int
    key: str
    size: int
    sha256: str
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Muxed:
    """The parts were joined to one file; `joins` by number of part."""

    KIND: ClassVar[str] = "muxed"
    file: str
    duration_ms: int
    joins: tuple[Join, ...]


Entry = PartBegun | Reported | Stored | Muxed


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment, numbered over all parts. `begins_part`: the timeline starts anew with it."""

    number: int
    part: int
    file: str
    duration_sec: float
    started_at: int
    begins_part: bool


@dataclass(frozen=True, slots=True)
class Image:
    """One image of output `output`, numbered by the recorder over all parts."""

    output: int
    number: int
    file: str
    taken_at: int


@dataclass(slots=True)
class Part:
    """What one recorder process left. `started_at` is 0 until its first media."""

    number: int
    reason: str
    began_at: int
    started_at: int = 0
    measured: Measured | None = None
    end: Ended | Broke | None = None

    @property
    def duration_ms(self) -> int:
        return self.measured.duration_ms if self.measured else 0

    @property
    def gaps(self) -> Sequence[Mapping[str, int | str]]:
        """What its recorder left out, milliseconds of the part."""
        return self.measured.gaps if self.measured else ()

    @property
    def left_out_ms(self) -> int:
        """How much longer it took than it lasts."""
        return sum(int(gap["durationMs"]) for gap in self.gaps)


@dataclass(slots=True)
class Footage:
    """The journal, folded. Tracks by part, sid and file ("" in a composition)."""

    parts: list[Part] = field(default_factory=list)
    facts: Joined | None = None
    segments: list[Segment] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    tracks: dict[tuple[int, str, str], TrackSeen] = field(default_factory=dict)
    stored: dict[tuple[str, int, int], Stored] = field(default_factory=dict)
    muxed: Muxed | None = None

    @property
    def next_part(self) -> int:
        return self.parts[-1].number + 1 if self.parts else 0

    @property
    def next_image(self) -> int:
        return max((image.number for image in self.images), default=-1) + 1

    @property
    def started_at(self) -> int:
        """The first media of all, ns since 1970; 0 without any."""
        return next((part.started_at for part in self.parts if part.started_at), 0)

    @property
    def has_media(self) -> bool:
        return bool(self.started_at)

    @property
    def duration_ms(self) -> int:
        return sum(part.duration_ms for part in self.parts)

    def part(self, number: int) -> Part:
        for part in reversed(self.parts):
            if part.number == number:
                return part
        raise KeyError(number)

    def apply(self, entry: Entry) -> None:
        match entry:
            case PartBegun():
                self.parts.append(Part(entry.part, entry.reason, entry.at))
            case Stored():
                self.stored[entry.media, entry.output, entry.number] = entry
            case Muxed():
                self.muxed = entry
            case Reported():
                self._apply_report(entry)

    def _apply_report(self, entry: Reported) -> None:
        part = self.part(entry.part)
        match entry.report:
            case Joined() as facts:
                self.facts = self.facts or facts
            case Active(started_at):
                part.started_at = part.started_at or started_at
            case Measured() as measured:
                part.measured = measured
            case (Ended() | Broke()) as end:
                part.end = end
            case TrackSeen() as track:
                self.tracks[entry.part, track.sid, track.file] = track
            case ImageWritten() as image:
                self.images.append(Image(image.output, image.number, image.file, image.taken_at))
            case SegmentWritten() as segment:
                begins = bool(self.segments) and self.segments[-1].part != entry.part
                self.segments.append(
                    Segment(
                        number=len(self.segments),
                        part=entry.part,
                        file=segment.file,
                        duration_sec=segment.duration_sec,
                        started_at=segment.started_at,
                        begins_part=begins,
                    )
                )


class Journal:
    """Appends to the journal of one egress; `footage` is what it says. One writer at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.footage = Footage()
        self._path = folder / JOURNAL_NAME
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path) -> Journal:
        """Makes the folder if there is none, else reads what earlier owners have left."""
        journal = cls(folder)
        for entry in await asyncio.to_thread(journal._read):
            journal.footage.apply(entry)
        return journal

    def is_stored(self, media: str, output: int, number: int, file: str, *, backup: bool) -> bool:
        """Whether it needs no upload to the backup storage or the first one: it is there, or only the other has it."""
        stored = self.footage.stored.get((media, output, number))
        if stored is None:
            return False
        return stored.backup == backup or not (self.folder / file).exists()

    async def add(self, entry: Entry, *, durable: bool = True) -> None:
        """Raise OSError when the disk cannot take it. What is not `durable` may be missing after a power cut."""
        line = json.dumps(to_json(entry), separators=(",", ":")).encode() + b"\n"
        async with self._writing:
            await asyncio.to_thread(self._append, line, durable)
            self.footage.apply(entry)

    def _read(self) -> list[Entry]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            # The next line must not be glued to what a dying worker left half-written.
            os.truncate(self._path, len(data) - len(torn))
        return list(_entries(whole.splitlines()))

    def _append(self, line: bytes, durable: bool) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(line)
            if durable:
                os.fdatasync(file.fileno())


def _entries(lines: Iterable[bytes]) -> Iterable[Entry]:
    for line in lines:
        try:
            entry: Entry = from_json(Entry, json.loads(line))
        except (ValueError, KeyError, TypeError):
            # After a power cut a file may hold what was never written to it.
            continue
        yield entry
