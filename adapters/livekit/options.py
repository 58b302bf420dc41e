"""What an operator chooses about the embedded LiveKit, and what only we and tests do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapters.livekit.ports import PortPlan


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """What the operator chose. `further_keys` are LiveKit pairs that it accepts besides its own.

    `webhook_url` is ours; None: no events. `public_url` is given to participants instead of its own address.
    `follow_only`: use what another process of this data directory runs, and never run one.
    """

    data_dir: Path
    http_host: str
    ports: PortPlan
    webhook_url: str | None = None
    binary: Path | None = None
    public_url: str | None = None
    follow_only: bool = False
    further_keys: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the supervisor is, seconds; not for operators to choose."""

    first_pause: float = 0.5
    last_pause: float = 30.0
    steady_after: float = 30.0
    start: float = 20.0
    tick: float = 0.25
    follow_every: float = 1.0
    health_every: float = 2.0
    hung_after: float = 30.0
