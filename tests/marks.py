"""What synthetic participants draw and sound, and how to read it back from a recording.

Each picture holds its number as sixteen bits in two rows, the lower one inverted, across its middle; in the first tenth of
every full second of the wall clock the rest is white, and a beep sounds at the same moment.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]

BITS = 16
CYCLE = 1 << BITS
FLASH_SEC = 0.1
BEEP_HZ = 1000.0
HZ = 48_000
BLOCK = HZ // 100
_DARK, _BRIGHT = 16, 235
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.2, 0.8, 0.40, 0.60
_MIN_CONTRAST = 50.0


class Painter:
    """Draws the pictures of one participant as I420, in the colour `(y, u, v)`, with a moving texture if `busy`."""

    def __init__(self, width: int, height: int, colour: tuple[int, int, int], *, busy: bool = False) -> None:
        self.width, self.height, self._colour = width, height, colour
        self._texture = _texture(width, height, colour[0]) if busy else None

    def paint(self, number: int, second: float) -> bytearray:
        """`second` is the wall time that the picture shows."""
        width, height = self.width, self.height
        flash = second % 1.0 < FLASH_SEC
        data = bytearray(width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2))
        pixels = np.frombuffer(data, np.uint8)
        luma = pixels[: width * height].reshape(height, width)
        chroma = pixels[width * height :].reshape(2, -1)
        chroma[0], chroma[1] = (128, 128) if flash else self._colour[1:]
        if flash:
            luma[:] = _BRIGHT
        elif self._texture is not None:
            down, right = number * 2 % height, number * 3 % width
            luma[:] = self._texture[down : down + height, right : right + width]
        else:
            luma[:] = self._colour[0]
        bits = np.array([number >> (BITS - 1 - bit) & 1 for bit in range(BITS)], bool)
        columns = np.linspace(_LEFT * width, _RIGHT * width, BITS + 1).astype(int)
        top, middle, bottom = (int(part * height) for part in (_TOP, (_TOP + _BOTTOM) / 2, _BOTTOM))
        row = np.repeat(np.where(bits, _BRIGHT, _DARK).astype(np.uint8), np.diff(columns))
        luma[top:middle, columns[0] : columns[-1]] = row
        luma[middle:bottom, columns[0] : columns[-1]] = _BRIGHT + _DARK - row
        return data


def _texture(width: int, height: int, brightness: int) -> Plane:
    """Twice the picture's size and periodic, so that it can be scrolled by slicing."""
    noise = np.random.default_rng(7).integers(0, 60, (height, width))
    shifted = [np.roll(noise, (down, right), (0, 1)) for down in range(4) for right in range(4)]
    smooth = np.mean(shifted, axis=0).astype(int)
    return np.tile((smooth + max(_DARK, brightness - 30)).clip(_DARK, 200).astype(np.uint8), (2, 2))


def read_number(luma: Plane) -> int | None:
    """The number of the picture in `luma`, which shows one participant, whole or cropped evenly; None when unreadable."""
    height, width = luma.shape
    columns = np.linspace(_LEFT * width, _RIGHT * width, BITS + 1)
    middle = (_TOP + _BOTTOM) / 2
    quarter = (_BOTTOM - _TOP) / 4
    rows = [
        slice(int((centre - quarter / 2) * height), max(1, int((centre + quarter / 2) * height)))
        for centre in (middle - quarter, middle + quarter)
    ]
    number = 0
    for left, right in itertools.pairwise(columns):
        inner = slice(math.ceil(left + (right - left) * 0.25), max(1, int(right - (right - left) * 0.25)) + 1)
        upper, lower = (float(luma[row, inner].mean()) for row in rows)
        if abs(upper - lower) < _MIN_CONTRAST:
            return None
        number = number << 1 | (upper > lower)
    return number


def is_flash(luma: Plane) -> bool:
    """Whether `luma`, which shows one participant, is white above the code."""
    height, width = luma.shape
    above = luma[int(0.1 * height) : int(0.3 * height), int(0.3 * width) : int(0.7 * width)]
    return float(above.mean()) > 200.0


def beep_block(first: int, hz: float = BEEP_HZ, loudness: float = 0.5) -> NDArray[np.int16]:
    """10 ms of the beep, `first` samples after its start, mono."""
    phase = (np.arange(BLOCK) + first) * (2 * math.pi * hz / HZ)
    block: NDArray[np.int16] = (np.sin(phase) * loudness * 32767).astype(np.int16)
    return block


def beeps(samples: NDArray[Any], hz: int = HZ, quiet_sec: float = 0.3) -> list[float]:
    """When beeps begin, in seconds; `samples` in -1…1, mono. A beep is what follows `quiet_sec` of near silence."""
    step = hz // 500
    usable = len(samples) // step * step
    loud = np.abs(samples[:usable]).reshape(-1, step).max(axis=1) > 0.1
    starts, silent_from = [], -quiet_sec
    for index, on in enumerate(loud):
        at = index * step / hz
        if on:
            if at - silent_from >= quiet_sec:
                starts.append(at)
            silent_from = at
    return starts
