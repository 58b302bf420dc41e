"""Samples by their place: written in blocks, taken off in order, silence where nothing is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]


class Tape:
    """Stereo at 48 kHz. Places only grow: what lies before those taken is gone."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, Samples]] = []
        self._energy = 0.0
        self._heard = 0
        self.taken = 0

    def put(self, place: int, samples: Samples) -> None:
        """`samples` of shape (n, 2) lie from `place` on."""
        if len(samples):
            self._blocks.append((place, samples))

    def skip(self, until: int) -> None:
        """What lies before is not wanted."""
        self.taken = until
        self._blocks = [block for block in self._blocks if block[0] + len(block[1]) > until]

    def take(self, until: int) -> Samples | None:
        """What lies between the last call's `until` and this one's; None when there is no sound in it."""
        begin, self.taken = self.taken, max(until, self.taken)
        out: Samples | None = None
        kept = []
        for place, samples in self._blocks:
            first, last = max(place, begin), min(place + len(samples), until)
            if first < last:
                if out is None:
                    out = np.zeros((until - begin, 2), np.int16)
                out[first - begin : last - begin] = samples[first - place : last - place]
            if place + len(samples) > until:
                kept.append((place, samples))
        self._blocks = kept
        if out is not None:
            left = out[:, 0].astype(np.float32)
            self._energy += float(left @ left)
        self._heard += max(0, until - begin)
        return out

    def level(self) -> float:
        """The loudness (root mean square, 0–1) of what was taken since the last call."""
        energy, heard = self._energy, self._heard
        self._energy, self._heard = 0.0, 0
        return math.sqrt(energy / heard) / 32768 if heard else 0.0
