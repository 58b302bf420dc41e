"""When a failed delivery is tried again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

DEFAULT_DELAYS: tuple[timedelta, ...] = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""About 75 hours in all (design section 12); the eleventh failure is the last."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """`delays[n - 1]` is the pause after the n-th failed attempt. `jitter` 0.1 spreads each pause by ±10 %.

    The spread depends on the delivery and attempt alone: retries that failed together come back apart, and the same
    delivery always at the same moments.
    """

    delays: tuple[timedelta, ...] = DEFAULT_DELAYS
    jitter: float = 0.1

    def pause(self, delivery_id: str, failed_attempts: int) -> timedelta | None:
        """The pause before the next attempt, None when there is none left."""
        if failed_attempts > len(self.delays):
            return None
        spread = self.jitter * (2 * _fraction(f"{delivery_id}:{failed_attempts}") - 1)
        return self.delays[failed_attempts - 1] * (1 + spread)


def schedule_of_seconds(seconds: Sequence[float], *, jitter: float = 0.1) -> RetrySchedule:
    """The schedule of a configured list of pauses in seconds."""
    return RetrySchedule(tuple(timedelta(seconds=value) for value in seconds), jitter)


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
