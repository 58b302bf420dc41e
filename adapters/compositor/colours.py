"""The colours of the stage, and how RGB becomes the canvas's limited-range Y'CbCr of BT.709, as it is tagged."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

Rgb = tuple[int, int, int]
Yuv = tuple[int, int, int]

_MATRIX = np.array(
    [
        [0.182586, 0.614231, 0.062007],
        [-0.100644, -0.338572, 0.439216],
        [0.439216, -0.398942, -0.040274],
    ],
    dtype=np.float32,
)
_OFFSET = (16.0, 128.0, 128.0)

# People without a camera; each tells itself from its neighbours, and carries white letters.
_PEOPLE: tuple[Rgb, ...] = (
    (82, 130, 232), (131, 100, 228), (188, 88, 168), (214, 88, 106), (218, 112, 62), (190, 140, 44),
    (104, 154, 70), (44, 154, 122), (38, 146, 170), (70, 102, 204), (156, 98, 78), (108, 120, 142),
)  # fmt: skip
_WHITE: Rgb = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Theme:
    """`plain` surrounds a picture that has the frame for itself, as in LiveKit; `surface` a fitted one in its tile.

    `glow` is the light on the empty stage and `ink` what is drawn there. `tint` (0–1) is how much of the background is
    in the tile of a camera that is off, the rest being the person's colour.
    """

    plain: Rgb
    background: Rgb
    surface: Rgb
    glow: Rgb
    ink: Rgb
    tint: float


DARK = Theme(
    plain=(0, 0, 0),
    background=(13, 14, 18),
    surface=(26, 28, 34),
    glow=(38, 44, 66),
    ink=(226, 230, 240),
    tint=0.76,
)
LIGHT = Theme(
    plain=_WHITE,
    background=(255, 255, 255),
    surface=(236, 238, 242),
    glow=(214, 222, 240),
    ink=(52, 58, 74),
    tint=0.78,
)
SPEAKING: Rgb = (56, 182, 255)
LABEL: Rgb = (12, 13, 17)
MUTED: Rgb = (255, 118, 118)


def to_yuv(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """RGB 0–255 in the last axis to Y'CbCr, without the offset that black has."""
    return pixels @ _MATRIX.T


def add_offset(plane: int) -> float:
    """What black has in a plane."""
    return _OFFSET[plane]


def yuv(colour: Rgb) -> Yuv:
    """A colour as the canvas stores it."""
    luma, cb, cr = to_yuv(np.array(colour, dtype=np.float32)) + np.array(_OFFSET, dtype=np.float32)
    return round(float(luma)), round(float(cb)), round(float(cr))


def mix(one: Rgb, other: Rgb, part: float) -> Rgb:
    """`one` with a `part` (0–1) of `other`."""
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return red, green, blue


def of_person(identity: str) -> Rgb:
    """The same for a person wherever they are shown."""
    return _PEOPLE[crc32(identity.encode()) % len(_PEOPLE)]


def lighter(colour: Rgb, part: float) -> Rgb:
    """Towards white."""
    return mix(colour, _WHITE, part)
