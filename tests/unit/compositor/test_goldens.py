"""Compositions look as they did when somebody looked at them (issue section 3: golden pictures by SSIM)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from adapters.compositor.picture import Planes
from tests.unit.compositor.goldens import FOLDER, paused, small
from tests.unit.compositor.scenes import SCENES, people
from tests.unit.compositor.ssim import ssim_map

# Letters take up few blocks, and with another font those differ; a tile in a wrong place changes many more.
_MEAN = 0.97
_DIFFERENT_BELOW = 0.6
_MAX_DIFFERENT = 0.02
_MAX_COLOUR_DISTANCE = 3.0


def likeness(image: Image.Image, golden: Image.Image) -> tuple[float, float, float]:
    """The mean similarity, the share of blocks that look different, and the mean distance of the colours."""
    one, other = (np.asarray(each.convert("YCbCr")) for each in (image, golden))
    blocks = ssim_map(one[:, :, 0], other[:, :, 0])
    distance = np.abs(one[:, :, 1:].astype(int) - other[:, :, 1:]).mean()
    return float(blocks.mean()), float((blocks < _DIFFERENT_BELOW).mean()), float(distance)


def check(planes: Planes, name: str) -> None:
    mean, different, distance = likeness(small(planes), Image.open(FOLDER / f"{name}.jpg"))
    assert mean >= _MEAN
    assert different <= _MAX_DIFFERENT
    assert distance <= _MAX_COLOUR_DISTANCE


@pytest.mark.parametrize("name", SCENES)
def test_composition_looks_as_it_should(name: str) -> None:
    """Each layout, both themes, portrait, shares, cameras off, and names in many scripts.

    EG-14, EG-15, EG-16, EG-17, B-39.
    """
    check(SCENES[name]().compose(), name)


def test_the_card_of_a_pause_looks_as_it_should() -> None:
    check(paused(), "card")


def test_every_golden_belongs_to_a_scene() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*SCENES, "card"}


def test_the_comparison_sees_what_matters() -> None:
    """A tile moved by a few pixels, another order, or a wrong colour is not taken for the golden picture."""
    golden = Image.open(FOLDER / "grid-4.jpg")
    planes = SCENES["grid-4"]().compose()
    moved: npt.NDArray[np.uint8] = np.roll(np.asarray(small(planes)), 6, axis=1)
    assert likeness(Image.fromarray(moved), golden)[0] < _MEAN
    tracks, pictures = people(4, speaking=3, muted=(0,))
    turned = SCENES["grid-4"]()
    turned = type(turned)("grid", (tracks[1], tracks[0], *tracks[2:]), pictures)
    assert likeness(small(turned.compose()), golden)[2] > _MAX_COLOUR_DISTANCE
    y, u, v = planes
    assert likeness(small((y, v, u)), golden)[2] > _MAX_COLOUR_DISTANCE
