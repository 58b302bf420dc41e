"""Brings a track's picture into its tile: cropped or fitted, and copied rather than scaled where that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from adapters.compositor.colours import Yuv
from adapters.compositor.picture import Picture, Plane, Planes, crop, fill, paste, planes_of
from server.domain.layout import Rect

# A picture at most this much larger than its tile is cropped a little more instead of being scaled: no one sees it,
# and a 640×360 camera in a quarter of 1280×720, which is 636×356 with the gap, costs a copy.
_CROP_INSTEAD = 1.05
_AVERAGE_BELOW = 0.7
# The image behind an upright picture is made from so many pixels a row, a part of its light, and every so many pictures.
_BACKDROP_SIDE = 16
_BACKDROP_LIGHT = 0.5
_BACKDROP_PICTURES = 6


@dataclass(frozen=True, slots=True)
class Fit:
    """`source` of the picture goes to `target` of the tile; of equal sizes it is copied."""

    source: Rect
    target: Rect

    @property
    def copies(self) -> bool:
        return (self.source.width, self.source.height) == (self.target.width, self.target.height)


def fit(width: int, height: int, tile_width: int, tile_height: int, *, cover: bool) -> Fit:
    """How a `width` × `height` picture goes into a tile, centred and without distortion."""
    across, down = tile_width / width, tile_height / height
    if cover:
        scale = max(across, down)
        if 1 / _CROP_INSTEAD <= scale <= 1:
            scale = 1.0
        source_width = min(_even(width), max(2, _even(round(tile_width / scale))))
        source_height = min(_even(height), max(2, _even(round(tile_height / scale))))
        return Fit(_centred(source_width, source_height, width, height), Rect(0, 0, tile_width, tile_height))
    scale = min(across, down)
    target_width = min(tile_width, max(2, _even(round(width * scale))))
    target_height = min(tile_height, max(2, _even(round(height * scale))))
    return Fit(
        Rect(0, 0, _even(width), _even(height)),
        _centred(target_width, target_height, tile_width, tile_height),
    )


def _even(length: int) -> int:
    return length // 2 * 2


def _centred(width: int, height: int, outer_width: int, outer_height: int) -> Rect:
    return Rect(_even((outer_width - width) // 2), _even((outer_height - height) // 2), width, height)


class Scaler:
    """Draws the pictures of one track; keeps libswscale's tables while the sizes stay, and the last scaled picture."""

    __slots__ = ("_backdrop", "_kept", "_key", "_reformatter")

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._key: object = None
        self._kept: Planes | None = None
        self._backdrop: Backdrop | None = None

    def draw(self, picture: Picture, target: Planes, *, cover: bool, surround: Yuv | None) -> None:
        """Fill `target`, a tile of the canvas, with the picture.

        What it does not cover becomes `surround` or, with None, a dark and blurred image of the picture itself.
        """
        tile_height, tile_width = target[0].shape
        placed = fit(picture.width, picture.height, tile_width, tile_height, cover=cover)
        inner = crop(target, placed.target)
        if (placed.target.width, placed.target.height) != (tile_width, tile_height):
            self._surround(picture, target, surround)
        source = crop(picture.planes, placed.source)
        if placed.copies:
            self._kept = None
            paste(inner, source)
            return
        key = (picture.version, placed)
        if self._kept is None or key != self._key:
            self._kept, self._key = _scaled(self._reformatter, source, placed.target), key
        paste(inner, self._kept)

    def _surround(self, picture: Picture, target: Planes, colour: Yuv | None) -> None:
        if colour is not None:
            fill(target, colour)
            return
        self._backdrop = self._backdrop or Backdrop()
        self._backdrop.draw(picture, target)


class Backdrop:
    """The blurred image behind an upright picture in a wide tile. It follows the picture slowly, and costs little."""

    __slots__ = ("_age", "_drawn", "_enlarger", "_image", "_reducer", "_size", "_version")

    def __init__(self) -> None:
        self._reducer = VideoReformatter()
        self._enlarger = VideoReformatter()
        self._image: Planes | None = None
        self._drawn: Planes | None = None
        self._size = (0, 0)
        self._version: int | None = None
        self._age = 0

    def draw(self, picture: Picture, target: Planes) -> None:
        height, width = target[0].shape
        self._age += picture.version != self._version
        self._version = picture.version
        if self._image is None or self._age >= _BACKDROP_PICTURES:
            self._image = self._follow(picture, width, height)
            self._drawn, self._age = None, 0
        if self._drawn is None or self._size != (width, height):
            self._drawn = _scaled(self._enlarger, self._image, Rect(0, 0, width, height))
            self._size = (width, height)
        paste(target, self._drawn)

    def _follow(self, picture: Picture, width: int, height: int) -> Planes:
        """The image with the newest picture mixed in: it is a few pixels of it, and enlarging them is the blur."""
        across, down = _BACKDROP_SIDE, max(2, _even(round(_BACKDROP_SIDE * height / width)))
        placed = fit(picture.width, picture.height, across, down, cover=True)
        y, u, v = _scaled(self._reducer, crop(picture.planes, placed.source), placed.target)
        newest = (((y.clip(16) - 16) * _BACKDROP_LIGHT + 16).astype(np.uint8), u, v)
        if self._image is None or self._image[0].shape != newest[0].shape:
            return newest
        return cast("Planes", tuple(_between(a, b) for a, b in zip(self._image, newest, strict=True)))


def _between(one: Plane, other: Plane) -> Plane:
    mixed: Plane = ((one.astype(np.uint16) + other + 1) // 2).astype(np.uint8)
    return mixed


def _scaled(reformatter: VideoReformatter, source: Planes, target: Rect) -> Planes:
    scaled = reformatter.reformat(
        av.VideoFrame.from_dlpack(_readable(source), format="yuv420p"),
        target.width,
        target.height,
        interpolation=_interpolation(target.width / source[0].shape[1]),
        threads=1,
    )
    return planes_of(scaled)


def _interpolation(scale: float) -> Interpolation:
    """The best picture for little: by measurement, averaging is both better and faster from about two thirds down."""
    if scale > 1:
        return Interpolation.BICUBIC
    return Interpolation.BILINEAR if scale > _AVERAGE_BELOW else Interpolation.AREA


def _readable(planes: Planes) -> Planes:
    """The planes in the form libswscale can read in place: writable memory with contiguous rows."""
    return cast("Planes", tuple(_in_place(plane) for plane in planes))


def _in_place(plane: Plane) -> Plane:
    if plane.flags.writeable and plane.strides[1] == 1:
        return plane
    return np.array(plane, order="C")
