"""Mixes the sounds of all tracks to one stereo signal on the recorder's clock.

Positions count samples at 48 kHz from the clock's start. The SDK delivers sound by its own timer, 20 ms at a time and
without times: a track's samples follow each other, and are shifted by a sample per block where they run ahead or behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]

HZ = 48_000
# As long as the timeline may lag before it leaves time out, and a little.
_RING = HZ * 3
# Over so many blocks the earliest arrival is looked for; the others waited for something.
_WINDOW = 25
_JUMP = HZ * 40 // 1000
_PLAY = HZ * 2 // 1000
_KNEE = 24_000.0
_ROOM = 32_767.0 - _KNEE


class Sound:
    """One track's samples around now. `put` is called by the SDK's thread, `take` by the mixing one."""

    def __init__(self) -> None:
        self._ring = np.zeros((_RING, 2), np.int16)
        self._lock = Lock()
        self._end: int | None = None
        self._taken = 0
        self._loud_until = -1
        self._lags: list[int] = []
        self._slew = 0
        self.late = 0
        self._energy = 0.0
        self._heard = 0

    def level(self) -> float:
        """The loudness (root mean square, 0–1) of what came since the last call."""
        with self._lock:
            energy, heard = self._energy, self._heard
            self._energy, self._heard = 0.0, 0
        return math.sqrt(energy / heard) / 32768 if heard else 0.0

    def put(self, samples: Samples, now: int) -> None:
        """`samples` of shape (n, 2) arrived at position `now`, so that they are the ones up to it."""
        left = samples[:, 0].astype(np.float32)
        energy = float(left @ left)
        with self._lock:
            self._energy += energy
            self._heard += len(samples)
            if self._slew and len(samples) > 2:
                samples = _stretched(samples, 1 if self._slew > 0 else -1)
                self._slew -= 1 if self._slew > 0 else -1
            start = self._end if self._end is not None else now - len(samples)
            self._end = start + len(samples)
            self._steer(now - self._end)
            self._write(samples, start)

    def _steer(self, lag: int) -> None:
        """`lag`: by how many samples this block came later than its place. Only the least lag says where it belongs."""
        self._lags.append(lag)
        if len(self._lags) < _WINDOW:
            return
        least = min(self._lags)
        self._lags.clear()
        if abs(least) > _JUMP:
            assert self._end is not None
            self._end += least
            self._slew = 0
        elif abs(least) > _PLAY:
            self._slew = least

    def _write(self, samples: Samples, start: int) -> None:
        if start < self._taken:
            missed = min(self._taken - start, len(samples))
            self.late += missed
            samples, start = samples[missed:], self._taken
        if not len(samples):
            return
        # Nobody takes yet: the oldest gives way.
        self._taken = max(self._taken, start + len(samples) - _RING)
        if samples.any():
            self._loud_until = start + len(samples)
        at = start % _RING
        first = min(len(samples), _RING - at)
        self._ring[at : at + first] = samples[:first]
        self._ring[: len(samples) - first] = samples[first:]

    def take(self, position: int, count: int) -> Samples | None:
        """The samples from `position` on, None where they are silent. Positions only grow."""
        with self._lock:
            end = position + count
            # So late that newer ones took their place.
            lost = position < self._taken
            self._clear(self._taken, end if lost else position)
            self._taken = max(self._taken, end)
            if lost or self._loud_until <= position:
                return None
            places = np.arange(position, position + count) % _RING
            samples: Samples = self._ring[places]
            self._ring[places] = 0
            return samples

    def _clear(self, start: int, end: int) -> None:
        at, count = start % _RING, min(max(0, end - start), _RING)
        self._ring[at : at + count] = 0
        self._ring[: max(0, at + count - _RING)] = 0


def _stretched(samples: Samples, more: int) -> Samples:
    """The same sound in one sample more or less."""
    count = len(samples)
    at = np.linspace(0, count - 1, count + more)
    left = np.minimum(at.astype(np.intp), count - 2)
    part = (at - left)[:, None]
    between: Samples = (samples[left] * (1 - part) + samples[left + 1] * part).astype(np.int16)
    return between


@dataclass(frozen=True, slots=True)
class Voice:
    """A sound and where it goes: `both`, `left` or `right`."""

    sound: Sound
    channel: str = "both"


def mix(voices: Mapping[str, Voice], position: int, count: int) -> Samples:
    """`count` samples from `position` on, shape (count, 2); what is too loud is bent, not cut."""
    total = np.zeros((count, 2), np.int32)
    loud = False
    for voice in voices.values():
        samples = voice.sound.take(position, count)
        if samples is None:
            continue
        loud = True
        if voice.channel == "both":
            total += samples
        else:
            total[:, 0 if voice.channel == "left" else 1] += samples.sum(axis=1, dtype=np.int32) // 2
    if not loud:
        return np.zeros((count, 2), np.int16)
    return bend(total)


def bend(total: NDArray[np.int32]) -> Samples:
    """To 16 bits: unchanged up to three quarters of the range, above that ever less, so that nothing is clipped."""
    if int(np.abs(total).max()) <= _KNEE:
        return total.astype(np.int16)
    loudness = np.abs(total).astype(np.float32)
    above = loudness > _KNEE
    bent = np.where(above, _KNEE + _ROOM * np.tanh((loudness - _KNEE) / _ROOM), loudness)
    return (np.sign(total) * bent).astype(np.int16)
