"""What the payload formats make of packets, and what is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """What a codec makes of the packets of one timestamp: `data` as its container wants it; size 0: not known here."""

    data: bytes
    key: bool
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded frame. `timestamp` counts the codec's clock and grows for ever, `arrival_ns` is since 1970."""

    data: bytes
    timestamp: int
    key: bool
    arrival_ns: int
    width: int = 0
    height: int = 0
