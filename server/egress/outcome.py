"""How captures end, and in which words (livekit-surface.md 2.1, 2.5; contract B-64)."""

from __future__ import annotations

from dataclasses import dataclass

from server.domain.egress import Egress, EgressStatus, Failing

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
FILES_GONE = Failing("EGRESS_FAILED", "The recorded files are gone from the server", 500)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an egress becomes once its outputs are in place. `ended_at` in ns since 1970: the last media."""

    status: EgressStatus
    reason: str
    ended_at: int
    failing: Failing | None = None

    @property
    def details(self) -> str:
        return f"End reason: {self.reason}"


def completed(reason: str, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.COMPLETE, reason, ended_at)


def failed(failing: Failing, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.FAILED, FAILURE, ended_at, failing)


def limited(reason: str, failing: Failing, ended_at: int) -> Outcome:
    return Outcome(EgressStatus.LIMIT_REACHED, reason, ended_at, failing)


def aborted(reason: str, ended_at: int) -> Outcome:
    """Nothing was recorded when it was stopped."""
    return Outcome(EgressStatus.ABORTED, reason, ended_at, ABORTED)


def details_of(egress: Egress, reason: str) -> str:
    """The first end reason wins."""
    return egress.details or f"End reason: {reason}"
