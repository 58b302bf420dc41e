"""Tells which tracks take part in a recording, from when to when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from adapters.recorder.members import Member, Publication
from server.ports.recorder import TrackSeen


class Attendance:
    """Positions are milliseconds of the part."""

    def __init__(self, report: Callable[[TrackSeen], None]) -> None:
        self._report = report
        self._seen: dict[str, TrackSeen] = {}

    def note(self, members: Iterable[Member], subscribed: Iterable[str], now_ms: int) -> None:
        """`subscribed`: the sids of the tracks that are received."""
        present = set(subscribed)
        published: dict[str, tuple[Member, Publication]] = {
            one.sid: (member, one) for member in members for one in member.publications
        }
        for sid in (present & published.keys()) - self._seen.keys():
            member, one = published[sid]
            self._seen[sid] = TrackSeen(sid, member.identity, one.media, one.codec, now_ms)
            self._report(self._seen[sid])
        for sid in self._seen.keys() - present:
            self._ended(sid, now_ms)

    def close(self, now_ms: int) -> None:
        """The recording ended, and with it everybody's part in it."""
        for sid in list(self._seen):
            self._ended(sid, now_ms)

    def _ended(self, sid: str, now_ms: int) -> None:
        seen = self._seen.pop(sid)
        self._report(replace(seen, end_ms=max(now_ms, seen.start_ms)))
