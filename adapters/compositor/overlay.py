"""What lies over a tile: names, borders and rounded corners, blended by touching only the pixels they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from adapters.compositor.colours import Rgb, add_offset, to_yuv
from adapters.compositor.picture import Plane, Planes
from server.domain.layout import Rect

_Floats = npt.NDArray[np.float32]
_Words = npt.NDArray[np.uint16]
_Places = npt.NDArray[np.int32]
_Indexes = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """Pixels of one plane, by their place in the patch: new value = (old × stays + added) / 256."""

    rows: _Places
    columns: _Places
    stays: _Words
    added: _Words


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """An even rectangle at `x`, `y` of a tile, with what it changes there in the Y, U and V planes."""

    x: int
    y: int
    width: int
    height: int
    planes: tuple[_Pixels, _Pixels, _Pixels]


def patch(x: int, y: int, stays: _Floats, added: _Floats) -> Patch:
    """From how much of each pixel stays, `(rows, columns)`, and the RGB that is added to it, 0–255 premultiplied."""
    colours = to_yuv(added)
    rows, columns = stays.shape
    planes = []
    for plane in range(3):
        colour = colours[:, :, plane] + add_offset(plane) * (1 - stays)
        planes.append(_pixels(_halved(stays), _halved(colour)) if plane else _pixels(stays, colour))
    return Patch(x, y, columns, rows, (planes[0], planes[1], planes[2]))


def _pixels(stays: _Floats, added: _Floats) -> _Pixels:
    rows, columns = (axis.astype(np.int32) for axis in np.nonzero(stays < 1))
    kept, colour = stays[rows, columns], added[rows, columns]
    return _Pixels(rows, columns, (kept * 256).round().astype(np.uint16), _rounding(colour))


def _rounding(colour: _Floats) -> _Words:
    """Half a step more, so that the division by 256 rounds; 255 × 256 + 128 still fits in 16 bits."""
    words: _Words = (colour * 256 + 128).clip(0, 255 * 256 + 128).astype(np.uint16)
    return words


def _halved(values: _Floats) -> _Floats:
    quarters = values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
    halved: _Floats = (quarters / 4).astype(np.float32)
    return halved


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One plane's part of an overlay, at `indexes` of the canvas's memory, and room to work in."""

    indexes: _Indexes
    stays: _Words
    added: _Words
    bytes_: Plane
    words: _Words


class Overlay:
    """Patches made ready for a tile at `rect` of one canvas, whose rows are `strides` bytes apart."""

    __slots__ = ("_layers",)

    def __init__(self, patches: Sequence[Patch], rect: Rect, strides: tuple[int, int, int]) -> None:
        self._layers = tuple(_layer(patches, rect, plane, stride) for plane, stride in enumerate(strides))

    def blend(self, memory: Planes) -> None:
        """Lay it over the canvas, whose planes are given as flat arrays."""
        for flat, layer in zip(memory, self._layers, strict=True):
            flat.take(layer.indexes, out=layer.bytes_, mode="clip")
            np.multiply(layer.bytes_, layer.stays, out=layer.words)
            np.add(layer.words, layer.added, out=layer.words)
            np.right_shift(layer.words, 8, out=layer.words)
            flat[layer.indexes] = layer.words

    def lift(self, memory: Planes) -> None:
        """Take what the canvas shows now as the colour to add: what was under a tile shines through its corners."""
        for flat, layer in zip(memory, self._layers, strict=True):
            flat.take(layer.indexes, out=layer.bytes_, mode="clip")
            np.subtract(256, layer.stays, out=layer.words)
            np.multiply(layer.bytes_, layer.words, out=layer.added)


def _layer(patches: Sequence[Patch], rect: Rect, plane: int, stride: int) -> _Layer:
    step = 2 if plane else 1
    parts = [
        (
            (pixels.rows + (rect.y + part.y) // step) * stride + pixels.columns + (rect.x + part.x) // step,
            pixels.stays,
            pixels.added,
        )
        for part in patches
        for pixels in (part.planes[plane],)
    ]
    if not parts:
        nothing = np.empty(0, np.uint16)
        return _Layer(np.empty(0, np.intp), nothing, nothing, np.empty(0, np.uint8), nothing)
    indexes, stays, added = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _Layer(
        indexes.astype(np.intp), stays, added, np.empty(stays.size, np.uint8), np.empty(stays.size, np.uint16)
    )


@dataclass(frozen=True, slots=True)
class Border:
    """A line along the inside of a tile, `thickness` (even) pixels wide; `strength` 1 covers the picture."""

    thickness: int
    colour: Rgb
    strength: float = 1.0


def frame_patches(
    width: int, height: int, radius: int, corner: Rgb | None, border: Border | None
) -> list[Patch]:
    """Rounded corners in `corner`'s colour, if any, and a border, if any, along them."""
    patches = _in_corners(_corners(radius, corner, border), width, height)
    if border is None:
        return patches
    band, thick = _band(radius, border), border.thickness
    return [
        *patches,
        _strip(band, 0, width - 2 * band, thick, border),
        _strip(band, height - thick, width - 2 * band, thick, border),
        _strip(0, band, thick, height - 2 * band, border),
        _strip(width - thick, band, thick, height - 2 * band, border),
    ]


def shape_patches(width: int, height: int, radius: int) -> list[Patch]:
    """What is to be cut out of a tile's corners, for `Overlay.lift`."""
    return _in_corners(_corners(radius, (0, 0, 0), None), width, height)


def _band(radius: int, border: Border | None) -> int:
    depth = max(radius, border.thickness + 1 if border else 0)
    return depth + depth % 2


def _in_corners(corners: Sequence[Patch], width: int, height: int) -> list[Patch]:
    """Patches made for the corners of a square of twice their size, in those of a tile of this size."""
    return [
        replace(part, x=part.x and width - part.width, y=part.y and height - part.height) for part in corners
    ]


@lru_cache(maxsize=32)
def _corners(radius: int, corner: Rgb | None, border: Border | None) -> tuple[Patch, ...]:
    band = _band(radius, border)
    depth = _depth(2 * band, radius)
    nothing = np.zeros_like(depth)
    outside = nothing if corner is None else np.clip(0.5 - depth, 0, 1)
    line = nothing
    if border is not None:
        line = np.clip(border.thickness + 0.5 - depth, 0, 1) * (1 - outside) * border.strength
    added = outside[:, :, None] * np.array(corner or (0, 0, 0), np.float32)
    if border is not None:
        added = added + line[:, :, None] * np.array(border.colour, np.float32)
    stays = 1 - outside - line
    return tuple(
        patch(x, y, stays[y : y + band, x : x + band], added[y : y + band, x : x + band])
        for y in (0, band)
        for x in (0, band)
    )


def _depth(side: int, radius: int) -> _Floats:
    """How deep each pixel of a square lies inside its rounded outline; negative outside."""
    from_middle = np.abs(np.arange(side, dtype=np.float32) + 0.5 - side / 2) - (side / 2 - radius)
    outward = np.hypot(np.maximum(from_middle, 0)[None, :], np.maximum(from_middle, 0)[:, None])
    inward = np.minimum(np.maximum(from_middle[None, :], from_middle[:, None]), 0)
    depth: _Floats = (radius - outward - inward).astype(np.float32)
    return depth


def _strip(x: int, y: int, width: int, height: int, border: Border) -> Patch:
    """The straight part of a border."""
    red, green, blue = border.colour
    colour = to_yuv(np.array((red, green, blue), np.float32))
    planes = []
    for plane in range(3):
        step = 2 if plane else 1
        rows, columns = np.indices((max(0, height) // step, max(0, width) // step), np.int32).reshape(2, -1)
        stays = np.full(rows.size, round((1 - border.strength) * 256), np.uint16)
        value = (colour[plane] + add_offset(plane)) * border.strength
        planes.append(_Pixels(rows, columns, stays, _rounding(np.full(rows.size, value, np.float32))))
    return Patch(x, y, width, height, (planes[0], planes[1], planes[2]))
