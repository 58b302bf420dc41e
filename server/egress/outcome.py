"""How captures end, and in which words (livekit-surface.md 2.1, 2.5; contract B-64)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from server.domain.egress import (
    Egress,
    EgressStatus,
    Failing,
    Results,
    StreamResult,
    StreamStatus,
    shown_status,
)
from server.domain.egress_sources import RoomTracksSource
from server.domain.recording import Recording

STOPPED = "StopEgress API"
SOURCE_CLOSED = "Source closed"
LIMIT = "Session limit reached"
STREAMS_ENDED = "All streams stopped"
FAILURE = "Failure"
DISK_LOW = "Disk nearly full"

ABORTED = Failing("EGRESS_ABORTED", "Stop called before pipeline could start", 412)
LIMIT_REACHED = Failing("LIMIT_REACHED", "Session limit reached", 413)
DISK_FULL = Failing("LIMIT_REACHED", "The disk of the server is nearly full", 413)
CONNECTION_LOST = Failing("EGRESS_FAILED", "recording ended early: connection to room failed", 503)
RECORDER_FAILS = Failing("EGRESS_FAILED", "The recorder failed again and again", 500)
NO_MEDIA = Failing("EGRESS_FAILED", "Nothing of what was recorded could be read", 500)
DELIVERY_BROKE = Failing("EGRESS_FAILED", "What was recorded could not be finished", 500)
CAPTURE_BROKE = Failing("INTERNAL", "The server failed", 500)
HOST_AWAY = Failing(
    "EGRESS_FAILED", "The server that holds what was recorded has been away for too long", 500
)
FILES_GONE = Failing("EGRESS_FAILED", "The recorded files are gone from the server", 500)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an egress becomes once its outputs are in place. `ended_at` in ns since 1970: the last media."""

    status: EgressStatus
    reason: str
    ended_at: int
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class Caution:
    """What threatens an egress that goes on. `code` is for programs."""

    code: str
    message: str


DISK_FILLS = Caution("DISK_LOW", "The disk of the server is filling up; the egress ends before it is full")


@dataclass(frozen=True, slots=True)
class Kept:
    """What was recorded, once it is in place: bytes and whole seconds (E.5). Tracks have many files and no address."""

    url: str | None
    size: int
    duration_sec: int


def completed(reason: str, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.COMPLETE, reason, ended_at)


def failed(failing: Failing, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.FAILED, FAILURE, ended_at, failing)


def limited(reason: str, failing: Failing, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.LIMIT_REACHED, reason, ended_at, failing)


def aborted(reason: str, ended_at: int) -> Outcome:
    """It ended, for whatever reason, before anything was recorded."""
    return Outcome(EgressStatus.ABORTED, reason, ended_at, ABORTED)


def concluded(egress: Egress, outcome: Outcome, results: Results, now: int) -> Egress:
    """The final row. Streams that nobody ended are over with it."""
    last = StreamStatus.FAILED if outcome.status is EgressStatus.FAILED else StreamStatus.FINISHED
    return replace(
        egress,
        status=outcome.status,
        details=details_of(egress, outcome.reason),
        failing=outcome.failing,
        paused="",
        ended_at=now,
        results=replace(results, streams=_over(egress.results.streams, last, outcome)),
    )


def recording_after(recording: Recording, egress: Egress) -> Recording:
    """The recording of an egress that has ended; the file is there even if it failed half way."""
    ended = replace(
        recording,
        status=shown_status(egress),
        ended_at=datetime.fromtimestamp(egress.ended_at / 1e9, UTC),
        error_code=egress.failing.code if egress.failing else None,
        error_message=egress.failing.message if egress.failing else None,
    )
    kept = kept_of(egress)
    if kept is None:
        return ended
    return replace(ended, file_url=kept.url, file_size=kept.size, duration_sec=kept.duration_sec)


def kept_of(egress: Egress) -> Kept | None:
    """None where nothing was kept, or only images."""
    files, segments = egress.results.files, egress.results.segments
    if files and isinstance(egress.plan.source, RoomTracksSource):
        lasted = max(file.ended_at for file in files) - min(file.started_at for file in files)
        return Kept(None, sum(file.size for file in files), whole_seconds(lasted))
    if files:
        return Kept(files[0].location or None, files[0].size, whole_seconds(files[0].duration))
    if segments:
        hls = segments[0]
        return Kept(hls.playlist_location or None, hls.size, whole_seconds(hls.duration))
    return None


def whole_seconds(nanoseconds: int) -> int:
    """Rounded half up (contract E.5)."""
    return math.floor(nanoseconds / 1e9 + 0.5)


def _over(
    streams: tuple[StreamResult, ...], status: StreamStatus, outcome: Outcome
) -> tuple[StreamResult, ...]:
    why = outcome.failing if status is StreamStatus.FAILED else None
    return tuple(
        replace(
            stream,
            status=status,
            ended_at=outcome.ended_at,
            error=why.message if why else "",
            error_code=why.code if why else "",
        )
        if stream.status is StreamStatus.ACTIVE
        else stream
        for stream in streams
    )


def details_of(egress: Egress, reason: str) -> str:
    """The first end reason wins."""
    return egress.details or _details(reason)


def is_told(egress: Egress, reason: str) -> bool:
    """Whether this is the reason for which it ends."""
    return egress.details == _details(reason)


def _details(reason: str) -> str:
    return f"End reason: {reason}"
