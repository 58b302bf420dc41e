"""What lies over a tile: names, borders and rounded corners, blended by touching only the pixels they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.compositor.colours import Rgb, add_offset, to_yuv
from adapters.compositor.picture import Plane
from server.domain.layout import Rect

_Floats = npt.NDArray[np.float32]
_Words = npt.NDArray[np.uint16]
_Indexes = npt.NDArray[np.intp]
_Area = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """An even rectangle of a tile: how much of the picture stays, `(rows, columns)`, and the colour added to it."""

    x: int
    y: int
    stays: _Floats
    added: _Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One plane's part: pixel = (pixel × stays + added) / 256 at `indexes` of the canvas's memory."""

    indexes: _Indexes
    stays: _Words
    added: _Words
    bytes_: Plane
    words: _Words


class Overlay:
    """Patches made ready for one place on one canvas, whose rows are `strides` bytes apart."""

    __slots__ = ("_layers",)

    def __init__(self, patches: Sequence[Patch], rect: Rect, strides: tuple[int, int, int]) -> None:
        self._layers = tuple(_layer(patches, rect, plane, stride) for plane, stride in enumerate(strides))

    def blend(self, memory: tuple[Plane, Plane, Plane]) -> None:
        """Lay it over the canvas, whose planes are given as flat arrays."""
        for flat, layer in zip(memory, self._layers, strict=True):
            flat.take(layer.indexes, out=layer.bytes_, mode="clip")
            np.multiply(layer.bytes_, layer.stays, out=layer.words)
            np.add(layer.words, layer.added, out=layer.words)
            np.right_shift(layer.words, 8, out=layer.words)
            flat[layer.indexes] = layer.words

    def lift(self, memory: tuple[Plane, Plane, Plane]) -> None:
        """Take what the canvas shows now as the colour to add: what was under a tile shines through its corners."""
        for flat, layer in zip(memory, self._layers, strict=True):
            flat.take(layer.indexes, out=layer.bytes_, mode="clip")
            np.subtract(256, layer.stays, out=layer.words)
            np.multiply(layer.bytes_, layer.words, out=layer.added)


def _layer(patches: Sequence[Patch], rect: Rect, plane: int, stride: int) -> _Layer:
    step = 1 if plane == 0 else 2
    indexes: list[_Indexes] = []
    stays: list[_Floats] = []
    added: list[_Floats] = []
    for patch in patches:
        stay = _halved(patch.stays) if plane else patch.stays
        colour = to_yuv(patch.added)[:, :, plane] + add_offset(plane) * (1 - patch.stays)
        colour = _halved(colour) if plane else colour
        rows, columns = np.nonzero(stay < 1)
        top, left = (rect.y + patch.y) // step, (rect.x + patch.x) // step
        indexes.append((rows + top) * stride + columns + left)
        stays.append(stay[rows, columns])
        added.append(colour[rows, columns])
    kept = np.concatenate(stays) if stays else np.empty(0, np.float32)
    colours = np.concatenate(added) if added else np.empty(0, np.float32)
    return _Layer(
        indexes=np.concatenate(indexes) if indexes else np.empty(0, np.intp),
        stays=(kept * 256).round().astype(np.uint16),
        # Half a step more rounds instead of cutting off; 255 × 256 + 128 still fits in 16 bits.
        added=(colours * 256 + 128).clip(0, 65535 - 255).astype(np.uint16),
        bytes_=np.empty(kept.size, np.uint8),
        words=np.empty(kept.size, np.uint16),
    )


def _halved(values: _Floats) -> _Floats:
    rows, columns = values.shape
    halved: _Floats = values.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return halved


def frame_patches(
    width: int, height: int, radius: int, corner: Rgb | None, border: int, colour: Rgb, strength: float
) -> list[Patch]:
    """Rounded corners in `corner`'s colour, if any, and a border of `border` pixels, 0 for none, along them."""
    band = _band(max(radius, border + 1), width, height)
    areas: tuple[_Area, ...]
    if border:
        areas = (
            (0, 0, width, band),
            (0, height - band, width, band),
            (0, band, band, height - 2 * band),
            (width - band, band, band, height - 2 * band),
        )
    else:
        areas = _corners(width, height, band) if corner is not None else ()
    patches = []
    for area in areas:
        depth = _depth(area, width, height, radius)
        outside = np.clip(0.5 - depth, 0, 1) if corner is not None else np.zeros_like(depth)
        ring = (
            np.clip(border + 0.5 - depth, 0, 1) * (1 - outside) * strength if border else np.zeros_like(depth)
        )
        added = ring[:, :, None] * np.array(colour, np.float32)
        added += outside[:, :, None] * np.array(corner or (0, 0, 0), np.float32)
        patches.append(Patch(area[0], area[1], 1 - outside - ring, added))
    return patches


def shape_patches(width: int, height: int, radius: int) -> list[Patch]:
    """What is to be cut out of a tile's corners, for `Overlay.lift`."""
    patches = []
    for area in _corners(width, height, _band(radius, width, height)):
        stays = np.clip(0.5 + _depth(area, width, height, radius), 0, 1)
        patches.append(Patch(area[0], area[1], stays, np.zeros((*stays.shape, 3), np.float32)))
    return patches


def _band(depth: int, width: int, height: int) -> int:
    """How many pixels from the edges are looked at: an even number, and no more than there are."""
    return min(depth + depth % 2, width // 2 // 2 * 2, height // 2 // 2 * 2)


def _corners(width: int, height: int, band: int) -> tuple[_Area, ...]:
    return tuple((x, y, band, band) for x in (0, width - band) for y in (0, height - band)) if band else ()


def _depth(area: _Area, width: int, height: int, radius: int) -> _Floats:
    """How deep each pixel of an area lies inside a rounded rectangle; negative outside."""
    x, y, across, down = area
    columns = np.arange(x, x + across, dtype=np.float32) + 0.5
    rows = np.arange(y, y + down, dtype=np.float32) + 0.5
    over = np.abs(columns - width / 2) - (width / 2 - radius)
    below = np.abs(rows - height / 2) - (height / 2 - radius)
    outward = np.hypot(np.maximum(over, 0)[None, :], np.maximum(below, 0)[:, None])
    inward = np.minimum(np.maximum(over[None, :], below[:, None]), 0)
    depth: _Floats = (radius - outward - inward).astype(np.float32)
    return depth
