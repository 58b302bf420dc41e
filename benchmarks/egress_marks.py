"""What a recording shows of its people, picture by picture: their numbers, flashes and beeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.marks import CYCLE, beeps, is_flash, read_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.domain.layout import Rect

# A flash and the beep that belongs to it are never further apart.
_TOGETHER_SEC = 0.45


@dataclass(slots=True)
class Footage:
    """`times` of the pictures and `beeps` in seconds; by tile, every picture's number and when flashes began."""

    times: list[float] = field(default_factory=list)
    numbers: dict[str, list[int | None]] = field(default_factory=dict)
    flashes: dict[str, list[float]] = field(default_factory=dict)
    beeps: list[float] = field(default_factory=list)

    def is_constant(self, fps: int) -> bool:
        """Whether every picture is one frame's time after the one before, to half a millisecond."""
        return bool(np.allclose(np.diff(self.times), 1 / fps, atol=0.0005))

    def offsets(self, tile: str) -> list[tuple[float, float]]:
        """For each flash with a beep near: when it was, and how much later the beep is, seconds."""
        return together(self.flashes[tile], self.beeps)


def together(flashes: Sequence[float], beeps: Sequence[float]) -> list[tuple[float, float]]:
    found = []
    for flash in flashes:
        near = [beep - flash for beep in beeps if abs(beep - flash) < _TOGETHER_SEC]
        if near:
            found.append((flash, min(near, key=abs)))
    return found


def read(path: Path, tiles: Mapping[str, Rect | None]) -> Footage:
    """Decodes a file, one picture in memory at a time. A tile None is the whole picture."""
    footage = Footage(numbers={name: [] for name in tiles}, flashes={name: [] for name in tiles})
    white = dict.fromkeys(tiles, True)
    blocks: list[tuple[float, NDArray[np.float32]]] = []
    hz = 48_000
    for at, luma, sound, rate in _decoded(path):
        if luma is None:
            assert sound is not None
            hz = rate
            blocks.append((at, sound))
            continue
        footage.times.append(at)
        for name, rect in tiles.items():
            part = luma if rect is None else luma[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            footage.numbers[name].append(read_number(part))
            was, white[name] = white[name], is_flash(part)
            if white[name] and not was:
                footage.flashes[name].append(at)
    if blocks:
        footage.beeps = beeps(_laid_out(blocks, hz), hz)
    return footage


def _laid_out(blocks: Sequence[tuple[float, NDArray[np.float32]]], hz: int) -> NDArray[np.float32]:
    """Each where its time says, for a track's own file leaves silence out."""
    at, last = blocks[-1]
    sound = np.zeros(round(at * hz) + len(last), np.float32)
    for at, block in blocks:
        start = max(0, round(at * hz))
        sound[start : start + len(block)] = block[: len(sound) - start]
    return sound


def _decoded(
    path: Path,
) -> Iterator[tuple[float, NDArray[np.uint8] | None, NDArray[np.float32] | None, int]]:
    """(seconds, luma, None, 0) and (seconds, None, mono in -1…1, Hz)."""
    import av

    with av.open(str(path)) as file:
        for frame in file.decode(*[one for one in file.streams if one.type in ("video", "audio")]):
            if isinstance(frame, av.VideoFrame):
                at = float(frame.time or 0.0)
                plane = frame.planes[0]
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                yield at, rows[:, : plane.width], None, 0
            elif isinstance(frame, av.AudioFrame):
                at = float(frame.time or 0.0)
                scale = 32768 if frame.format.name.startswith("s16") else 1
                samples = frame.to_ndarray().reshape(-1, frame.samples).astype(np.float32)
                if not frame.format.is_planar:
                    samples = frame.to_ndarray().reshape(frame.samples, -1).T.astype(np.float32)
                yield at, None, samples.mean(axis=0) / scale, frame.sample_rate


def since(moment: float, number: int, fps: int = 30) -> float:
    """Seconds from a moment to when a picture was shown, by its number; numbers come again after half an hour.

    `moment` counts from the people's `origin`, as the numbers do.
    """
    return ((number - moment * fps + CYCLE / 2) % CYCLE - CYCLE / 2) / fps


def unevenness(shown: Sequence[int | None], sent: Collection[int]) -> float:
    """The share of pictures that are repeated, or that are left out although they were `sent`.

    Where nothing was sent, there is nothing to show, and the one before is rightly repeated.
    """
    numbers = [number for number in shown if number is not None]
    first, last = numbers[0], numbers[-1]
    arrived = {number for number in sent if first <= number <= last} | set(numbers)
    missing = last - first + 1 - len(arrived)
    repeated = sum(a == b for a, b in pairwise(numbers))
    skipped = len(arrived - set(numbers))
    return (max(0, repeated - missing) + skipped) / len(numbers)
