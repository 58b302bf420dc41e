"""HLS of an egress: segments uploaded in order while it runs, playlists only after what they name (design section 7)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from server.clock import iso_millis
from server.domain.egress import Egress, SegmentsOutput, SegmentsResult
from server.domain.mpegts import NotTransportStream, whole_start
from server.domain.objects import PLAYLIST_TYPE
from server.egress.journal import Journal, Reported, Segment, Stored
from server.egress.manifest import ManifestObject
from server.egress.names import SegmentNames
from server.egress.storage import OpenStorage
from server.ports.recorder import Measured, SegmentWritten

_log = logging.getLogger(__name__)

SEGMENT = "segment"
LIVE_WINDOW = 5
_MAIN_AT_LEAST_SEC = 60.0
_LOOK_SEC = 0.05


@dataclass(frozen=True, slots=True)
class PlaylistEntry:
    """One line of a playlist; `started_at` in ns since 1970."""

    uri: str
    duration_sec: float
    started_at: int
    begins_part: bool = False


def main_playlist(entries: Sequence[PlaylistEntry], segment_sec: int, *, ended: bool) -> str:
    """LiveKit's EVENT playlist, from the first segment on."""
    return _playlist(entries, entries, segment_sec, 0, "#EXT-X-PLAYLIST-TYPE:EVENT", ended=ended)


def live_playlist(entries: Sequence[PlaylistEntry], segment_sec: int, *, ended: bool) -> str:
    """The last few segments."""
    gone = max(len(entries) - LIVE_WINDOW, 0)
    return _playlist(entries, entries[gone:], segment_sec, gone, "", ended=ended)


def _playlist(
    every: Sequence[PlaylistEntry],
    shown: Sequence[PlaylistEntry],
    segment_sec: int,
    first: int,
    kind: str,
    *,
    ended: bool,
) -> str:
    longest = max((int(entry.duration_sec + 0.5) for entry in every), default=0)
    lines = ["#EXTM3U", "#EXT-X-VERSION:4"]
    lines += [kind] if kind else []
    lines += [
        "#EXT-X-ALLOW-CACHE:NO",
        f"#EXT-X-TARGETDURATION:{max(segment_sec, longest)}",
        f"#EXT-X-MEDIA-SEQUENCE:{first}",
    ]
    if slid := sum(entry.begins_part for entry in every[:first]):
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{slid}")
    for entry in shown:
        if entry.begins_part:
            lines.append("#EXT-X-DISCONTINUITY")
        moment = iso_millis(datetime.fromtimestamp(entry.started_at / 1e9, UTC))
        lines += [
            f"#EXT-X-PROGRAM-DATE-TIME:{moment}",
            f"#EXTINF:{entry.duration_sec:.3f},",
            quote(entry.uri, safe="/-._~"),
        ]
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


class SegmentUploads:
    """One HLS output. What is on disk waits there until the storage has taken it; the journal knows how far it is.

    With `keep` it stays on disk even then: should the backup storage be needed later, it takes all of it.
    """

    def __init__(
        self,
        egress: Egress,
        index: int,
        names: SegmentNames,
        storage: OpenStorage,
        journal: Journal,
        *,
        keep: bool = False,
    ) -> None:
        self._keep = keep
        self._output: SegmentsOutput = egress.plan.outputs.segments[index]
        self._outputs = len(egress.plan.outputs.segments)
        self._index = index
        self._names = names
        self._storage = storage
        self._journal = journal
        self._since_main = 0
        self._main_at = 0.0
        self._listed = 0
        self._playlists: dict[str, ManifestObject] = {}

    async def catch_up(self) -> None:
        """Uploads what is there, in order. Raise StorageError, OwnershipLost; what is done stays done."""
        segments = self._journal.footage.segments
        while (segment := self._first_missing()) is not None:
            await self._upload(segment)
            self._since_main += 1
            behind = segment.number + 1 < len(segments)
            if not behind or self._main_is_due():
                await self._put_playlists(ended=False)
        if self._listed != self._uploaded():
            await self._put_playlists(ended=False)

    async def finish(self) -> SegmentsResult:
        """The rest, and the final playlists. Raise StorageError, OwnershipLost."""
        while (segment := self._first_missing()) is not None:
            await self._upload(segment)
        await self._put_playlists(ended=True)
        return self.result()

    def result(self) -> SegmentsResult:
        """As it is by now."""
        done = self._done()
        last = done[-1] if done else None
        return SegmentsResult(
            playlist_name=self._storage.full_key(self._names.playlist),
            live_playlist_name=self._storage.full_key(self._names.live_playlist)
            if self._names.live_playlist
            else "",
            playlist_location=self._storage.location(self._names.playlist),
            live_playlist_location=(
                self._storage.location(self._names.live_playlist) if self._names.live_playlist else ""
            ),
            duration=sum(int(one.duration_sec * 1e9) for one in done),
            size=sum(self._stored(one.number).size for one in done),
            segment_count=len(done),
            started_at=done[0].started_at if done else 0,
            ended_at=last.started_at + int(last.duration_sec * 1e9) if last else 0,
        )

    def objects(self) -> list[ManifestObject]:
        """Segments and final playlists, for the manifest."""
        main = self._storage.location(self._names.playlist)
        rows = [replace(one, kind="playlist") for one in self._playlists.values()]
        for segment in self._done():
            done = self._stored(segment.number)
            rows.append(
                ManifestObject(
                    key=self._storage.full_key(done.key),
                    size=done.size,
                    sha256=done.sha256,
                    location=self._storage.location(done.key),
                    kind="segment",
                    playlist=main,
                )
            )
        return rows

    # --- segments

    def _first_missing(self) -> Segment | None:
        segments, number = self._journal.footage.segments, self._uploaded()
        return segments[number] if number < len(segments) else None

    def _uploaded(self) -> int:
        """How many from the first one on are in place."""
        segments, number = self._journal.footage.segments, self._listed
        while number < len(segments) and self._is_in_place(segments[number]):
            number += 1
        return number

    def _is_in_place(self, segment: Segment) -> bool:
        return self._journal.is_stored(
            SEGMENT, self._index, segment.number, segment.file, backup=self._storage.is_backup
        )

    async def _upload(self, segment: Segment) -> None:
        path = self._journal.folder / segment.file
        if not path.exists():
            # A power cut took it; those after it are worth as much as before.
            _log.error("%s is gone, the playlist goes on without it", path)
            await self._journal.add(Stored(SEGMENT, self._index, segment.number, key="", size=0, sha256=""))
            return
        key = self._names.segment(segment.number, segment.started_at)
        size = path.stat().st_size
        digest = await self._storage.put(key, path)
        await self._journal.add(
            Stored(SEGMENT, self._index, segment.number, key, size, digest, self._storage.is_backup)
        )
        stored = self._journal.footage.stored
        if not self._keep and all(
            (SEGMENT, output, segment.number) in stored for output in range(self._outputs)
        ):
            path.unlink(missing_ok=True)

    def _stored(self, number: int) -> Stored:
        return self._journal.footage.stored[SEGMENT, self._index, number]

    def _done(self) -> list[Segment]:
        """Those in place; the timeline starts anew behind one that is gone."""
        done: list[Segment] = []
        gone = False
        for segment in self._journal.footage.segments[: self._uploaded()]:
            if not self._stored(segment.number).key:
                gone = True
                continue
            done.append(replace(segment, begins_part=True) if gone and done else segment)
            gone = False
        return done

    # --- playlists

    def _main_is_due(self) -> bool:
        """As LiveKit: the longer it runs, the longer the playlist, and the less often it is sent."""
        hours = self._journal.footage.duration_ms / 3_600_000
        return self._since_main > hours or time.monotonic() - self._main_at >= _MAIN_AT_LEAST_SEC

    async def _put_playlists(self, *, ended: bool) -> None:
        uploaded = self._uploaded()
        done = self._done()
        entries = [
            PlaylistEntry(
                uri=self._names.in_playlist(self._stored(one.number).key),
                duration_sec=one.duration_sec,
                started_at=one.started_at,
                begins_part=one.begins_part,
            )
            for one in done
        ]
        if self._names.live_playlist:
            text = live_playlist(entries, self._output.segment_sec, ended=ended)
            await self._put(self._names.live_playlist, text)
        if ended or self._main_is_due():
            await self._put(
                self._names.playlist, main_playlist(entries, self._output.segment_sec, ended=ended)
            )
            self._since_main, self._main_at = 0, time.monotonic()
        self._listed = uploaded

    async def _put(self, key: str, text: str) -> None:
        data = text.encode()
        await self._storage.store.put_bytes(key, data, content_type=PLAYLIST_TYPE)
        digest = hashlib.sha256(data).hexdigest()
        self._playlists[key] = ManifestObject(
            self._storage.full_key(key), len(data), digest, self._storage.location(key)
        )


def untold(journal: Journal, part: int | None = None) -> list[Path]:
    """Segments on disk, of one part or of all, that no recorder has told of, in order."""
    known = {segment.file for segment in journal.footage.segments}
    named = "seg-*.ts" if part is None else f"seg-{part:03d}-*.ts"
    return [path for path in sorted(journal.folder.glob(named)) if path.name not in known]


async def until_written(folder: Path, part: int, within_sec: float) -> bool:
    """Waits for a recorder that has outlived its worker. False if it may write segments even then."""
    deadline = time.monotonic() + within_sec
    while await asyncio.to_thread(_is_locked, folder / f"seg-{part:03d}.lock"):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SEC)
    return True


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # It was never made or is removed again, or there are no locks here.
        return False
    return False


async def adopt_segments(journal: Journal, part: int) -> None:
    """Enters into the journal what a recorder that died had written but could not tell of: the segment that was open, as
    far as it is whole, and one before it. What was measured of the part is put right by it.

    It must not write any more (`until_written`). Once segments of a later part are known, it is too late for it. Raise
    OSError when the disk refuses.
    """
    if any(segment.part > part for segment in journal.footage.segments):
        return
    at = journal.footage.part(part).started_at
    for segment in journal.footage.segments:
        if segment.part == part:
            at = segment.started_at + int(segment.duration_sec * 1e9)
    for path in untold(journal, part):
        duration = await asyncio.to_thread(_trimmed, path)
        if not duration:
            continue
        number = int(path.stem.rpartition("-")[2])
        await journal.add(Reported(part, SegmentWritten(path.name, number, duration, at)))
        at += int(duration * 1e9)
    await _correct_length(journal, part)


async def _correct_length(journal: Journal, part: int) -> None:
    """What was encoded but not written is lost; what was written after the last report is not."""
    held = sum(one.duration_sec for one in journal.footage.segments if one.part == part)
    measured = journal.footage.part(part).measured or Measured(0)
    if abs(held * 1000 - measured.duration_ms) >= 1:
        await journal.add(Reported(part, replace(measured, duration_ms=round(held * 1000))))


def _trimmed(path: Path) -> float:
    """Cuts a segment to what is whole of it; its duration in seconds. One without anything is removed."""
    data = path.read_bytes()
    try:
        whole = whole_start(data)
    except NotTransportStream as error:
        _log.warning("%s is left out: %s", path.name, error)
        path.unlink()
        return 0.0
    if whole.size < len(data):
        with path.open("rb+") as file:
            file.truncate(whole.size)
            os.fsync(file.fileno())
    return whole.duration_sec
