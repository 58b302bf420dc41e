"""I420 pictures as numpy planes: those of tracks, and the canvas that shares its memory with the encoder's frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from adapters.compositor.colours import Yuv, add_offset, to_yuv
from server.domain.layout import Rect

if TYPE_CHECKING:
    from PIL.Image import Image

Plane = npt.NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The newest frame of a track. `planes` are the Y, U and V planes of I420; `version` differs for every new frame.

    The planes must not change any more: they are drawn again whenever something over them changes.
    """

    width: int
    height: int
    planes: Planes
    version: int

    @classmethod
    def of_i420(
        cls, data: bytes | bytearray | memoryview, width: int, height: int, version: int, rotation: int = 0
    ) -> Picture:
        """From packed I420, without a copy unless `rotation` (degrees clockwise, 0, 90, 180 or 270) asks for one."""
        chroma_width, chroma_height = (width + 1) // 2, (height + 1) // 2
        flat = np.frombuffer(data, np.uint8)
        luma, chroma = width * height, chroma_width * chroma_height
        planes = (
            flat[:luma].reshape(height, width),
            flat[luma : luma + chroma].reshape(chroma_height, chroma_width),
            flat[luma + chroma : luma + 2 * chroma].reshape(chroma_height, chroma_width),
        )
        turns = rotation // 90 % 4
        if turns:
            planes = cast("Planes", tuple(np.ascontiguousarray(np.rot90(plane, -turns)) for plane in planes))
        return cls(planes[0].shape[1], planes[0].shape[0], planes, version)


def planes_of(frame: av.VideoFrame) -> Planes:
    """Writable views of a yuv420p frame's own memory."""
    views = []
    for plane in frame.planes:
        rows = np.frombuffer(cast("memoryview", plane), np.uint8).reshape(plane.height, plane.line_size)
        views.append(rows[:, : plane.width])
    return cast("Planes", tuple(views))


def memory_of(frame: av.VideoFrame) -> tuple[Planes, tuple[int, int, int]]:
    """The same memory as flat arrays, and how many bytes apart their rows are."""
    flat = tuple(np.frombuffer(cast("memoryview", plane), np.uint8) for plane in frame.planes)
    return cast("Planes", flat), cast(
        "tuple[int, int, int]", tuple(plane.line_size for plane in frame.planes)
    )


def new_frame(width: int, height: int) -> av.VideoFrame:
    """A yuv420p frame tagged BT.709, limited range. Both sides must be even."""
    frame = av.VideoFrame(width, height, "yuv420p")
    frame.colorspace = Colorspace.ITU709
    frame.color_range = ColorRange.MPEG
    frame.color_trc = ColorTrc.BT709
    frame.color_primaries = ColorPrimaries.BT709
    return frame


def new_planes(width: int, height: int) -> Planes:
    """Planes of their own, of even size."""
    chroma = (height // 2, width // 2)
    return np.empty((height, width), np.uint8), np.empty(chroma, np.uint8), np.empty(chroma, np.uint8)


def crop(planes: Planes, rect: Rect) -> Planes:
    """The part of the planes under an even rectangle, as views."""
    y, u, v = planes
    half_rows = slice(rect.y // 2, (rect.y + rect.height) // 2)
    half_columns = slice(rect.x // 2, (rect.x + rect.width) // 2)
    return (
        y[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width],
        u[half_rows, half_columns],
        v[half_rows, half_columns],
    )


def paste(target: Planes, source: Planes) -> None:
    """Copy a picture over one of the same size."""
    for to, of in zip(target, source, strict=True):
        to[...] = of


def fill(target: Planes, colour: Yuv) -> None:
    """Paint a part of the canvas in one colour."""
    for plane, value in zip(target, colour, strict=True):
        plane.fill(value)


def i420(image: Image) -> Planes:
    """A Pillow image of even size as I420 planes; transparency is ignored."""
    full = to_yuv(np.asarray(image.convert("RGB"), dtype=np.float32))
    full += [add_offset(plane) for plane in range(3)]
    halved = full.reshape(full.shape[0] // 2, 2, full.shape[1] // 2, 2, 3).mean(axis=(1, 3))
    return (
        full[:, :, 0].round().astype(np.uint8),
        halved[:, :, 1].round().astype(np.uint8),
        halved[:, :, 2].round().astype(np.uint8),
    )
