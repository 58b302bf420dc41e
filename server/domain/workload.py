"""How much there is to do, over all projects: what metrics show and alerts are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KindLoad:
    """Jobs of one kind that have not ended; `oldest` is when the oldest PENDING one was submitted."""

    kind: str
    pending: int
    processing: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Workload:
    """`deliveries` are webhook deliveries still to be made; `due_since` is when the earliest of them was or will be due."""

    jobs: tuple[KindLoad, ...]
    deliveries: int
    due_since: datetime | None
