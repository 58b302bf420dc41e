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

    __slots__ = ("_kept", "_key", "_reformatter")

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._key: object = None
        self._kept: Planes | None = None

    def draw(self, picture: Picture, target: Planes, *, cover: bool, surround: Yuv) -> None:
        """Fill `target`, a tile of the canvas, with the picture; what it does not cover becomes `surround`."""
        tile_height, tile_width = target[0].shape
        placed = fit(picture.width, picture.height, tile_width, tile_height, cover=cover)
        inner = crop(target, placed.target)
        if (placed.target.width, placed.target.height) != (tile_width, tile_height):
            fill(target, surround)
        source = crop(picture.planes, placed.source)
        if placed.copies:
            self._kept = None
            paste(inner, source)
            return
        key = (picture.version, placed)
        if self._kept is None or key != self._key:
            self._kept, self._key = self._scaled(source, placed), key
        paste(inner, self._kept)

    def _scaled(self, source: Planes, placed: Fit) -> Planes:
        scaled = self._reformatter.reformat(
            av.VideoFrame.from_dlpack(_readable(source), format="yuv420p"),
            placed.target.width,
            placed.target.height,
            interpolation=_interpolation(placed.target.width / placed.source.width),
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
