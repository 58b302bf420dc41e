"""Wall-clock time behind a port, so that expiry and schedules can be tested without waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Current time, timezone-aware UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def iso_millis(moment: datetime) -> str:
    """`2025-04-16T00:00:00.000Z` (GN-20)."""
    moment = moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def iso_seconds(moment: datetime) -> str:
    """`2026-03-29T14:30:00Z` (GN-21)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
