"""The golden pictures: `python -m tests.unit.compositor.goldens` draws them again; look at them before committing."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from adapters.compositor import Compositor
from adapters.compositor.picture import Planes, new_frame, paste, planes_of
from tests.unit.compositor.scenes import SCENES

FOLDER = Path(__file__).parent / "goldens"
_QUALITY = 85


def small(planes: Planes) -> Image.Image:
    """A composed picture in RGB at half its size."""
    height, width = planes[0].shape
    frame = new_frame(width, height)
    paste(planes_of(frame), planes)
    rgb = frame.reformat(format="rgb24", src_colorspace="itu709").to_ndarray()
    return Image.fromarray(rgb).reduce(2)


def paused() -> Planes:
    return planes_of(Compositor(1280, 720, 30).card("Recording is paused"))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        small(scene().compose()).save(FOLDER / f"{name}.jpg", quality=_QUALITY, optimize=True)
    small(paused()).save(FOLDER / "card.jpg", quality=_QUALITY, optimize=True)


if __name__ == "__main__":
    main()
