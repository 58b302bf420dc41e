"""Colourful pictures and full scenes to compose, made from nothing but arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from adapters.compositor import Compositor, Picture
from adapters.compositor.colours import add_offset, to_yuv
from adapters.compositor.picture import Planes, planes_of
from server.domain.layout import StageTrack

_SKIES = ((24, 60, 120), (120, 52, 40), (30, 92, 70), (92, 48, 110), (140, 100, 40), (30, 96, 120))
_GROUNDS = (
    (240, 170, 110),
    (250, 208, 130),
    (170, 220, 150),
    (250, 180, 200),
    (250, 236, 170),
    (190, 220, 240),
)
PEOPLE = (
    "Anna Müller", "Ben Carter", "Chiara Rossi", "Deniz Öztürk", "Emma Larsen", "Farid Rahimi", "Grace Okafor",
    "Hugo Martin", "Ines Costa", "Jonas Weber", "Kaya Şahin", "Lena Novak", "Milan Petrović", "Nora Quinn",
    "Oscar Lind", "Priya Nair",
)  # fmt: skip


@lru_cache(maxsize=64)
def camera(width: int, height: int, seed: int = 0) -> Picture:
    """Someone in front of a coloured wall: a gradient, a pattern on it, shoulders and a head, a ruler at the edges."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    down = (y / height)[:, :, None]
    sky = np.array(_SKIES[seed % len(_SKIES)], np.float32)
    ground = np.array(_GROUNDS[seed * 5 % len(_GROUNDS)], np.float32)
    image = sky + (ground - sky) * down
    unit = min(width, height)
    image += 10 * np.sin((x + y * (seed % 3 - 1)) / unit * 22)[:, :, None]
    centre_x = width * (0.46 + 0.02 * (seed % 5))
    shoulders = np.hypot((x - centre_x) / (unit * 0.42), (y - height * 1.08) / (unit * 0.42)) < 1
    head = np.hypot((x - centre_x) / (unit * 0.17), (y - height * 0.43) / (unit * 0.21)) < 1
    shirt = np.array(_SKIES[(seed + 3) % len(_SKIES)], np.float32)
    skin = np.array((226 - seed * 23 % 110, 178 - seed * 19 % 90, 146 - seed * 17 % 80), np.float32)
    image[shoulders] = shirt * 0.9 + 20
    image[head] = skin
    image[((x // 16 + y // 16) % 2 == 0) & ((x < 16) | (y < 16) | (x >= width - 16) | (y >= height - 16))] = (
        235
    )
    return _picture(image)


@lru_cache(maxsize=8)
def screen(width: int, height: int) -> Picture:
    """A page with lines of text, a heading and a chart."""
    image = np.full((height, width, 3), 250, np.float32)
    image[: height // 12] = (46, 52, 70)
    rows = np.random.default_rng(3)
    for line in range(6, 30):
        top = height * line // 34 + height // 30
        length = int(width * (0.28 + 0.18 * rows.random()))
        image[top : top + max(2, height // 90), width // 20 : width // 20 + length] = (96, 100, 112)
    for bar in range(7):
        left = width * 60 // 100 + bar * width * 5 // 100
        top = int(height * (0.8 - 0.5 * rows.random()))
        image[top : height * 82 // 100, left : left + width * 3 // 100] = (70, 120 + bar * 15, 220 - bar * 20)
    return _picture(image)


def _picture(image: np.ndarray) -> Picture:
    height, width, _ = image.shape
    full = to_yuv(image.clip(0, 255)) + np.array([add_offset(plane) for plane in range(3)], np.float32)
    half = full.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    data = bytearray()
    for values in (full[:, :, 0], half[:, :, 1], half[:, :, 2]):
        data += values.round().astype(np.uint8).tobytes()
    return Picture.of_i420(data, width, height, 1)


@dataclass(frozen=True)
class Scene:
    """What a composition is made from."""

    layout: str
    tracks: tuple[StageTrack, ...]
    pictures: Mapping[str, Picture]
    speaker: str | None = None
    width: int = 1280
    height: int = 720

    def compose(self, compositor: Compositor | None = None, now: float = 0.0) -> Planes:
        """A copy of the composed planes."""
        composed = compositor or Compositor(self.width, self.height, 30)
        frame, _ = composed.compose(self.layout, self.tracks, self.speaker, self.pictures, now)
        y, u, v = planes_of(frame)
        return y.copy(), u.copy(), v.copy()


def people(
    count: int,
    *,
    size: tuple[int, int] = (640, 360),
    names: tuple[str, ...] = PEOPLE,
    speaking: int | None = None,
    muted: tuple[int, ...] = (),
    off: tuple[int, ...] = (),
) -> tuple[tuple[StageTrack, ...], dict[str, Picture]]:
    """`count` people with a camera each; those in `off` have it off."""
    tracks = tuple(
        StageTrack(
            f"t{index}",
            f"p{index}",
            names[index % len(names)],
            "avatar" if index in off else "camera",
            *size,
            muted=index in muted,
            speaking=index == speaking,
        )
        for index in range(count)
    )
    return tracks, {f"t{index}": camera(*size, index) for index in range(count) if index not in off}


def _grid(count: int, **more: object) -> Scene:
    tracks, pictures = people(count, **more)  # type: ignore[arg-type]
    return Scene("grid", tracks, pictures)


def _speaker() -> Scene:
    tracks, pictures = people(5, speaking=2, muted=(1,), off=(4,))
    return Scene("speaker", tracks, pictures, "p2")


def _sharing(layout: str) -> Scene:
    tracks, pictures = people(4, speaking=1, muted=(2,))
    share = StageTrack("s", "p0", PEOPLE[0], "screen_share", 1440, 900)
    return Scene(layout, (*tracks, share), {**pictures, "s": screen(1440, 900)}, "p1")


def _pip() -> Scene:
    tracks, pictures = people(2, size=(1280, 720), speaking=1)
    return Scene("pip", tracks, pictures, "p1")


def _portraits() -> Scene:
    tracks, pictures = people(3, muted=(2,))
    upright = StageTrack("t9", "p9", "Nora Quinn", "camera", 360, 640)
    return Scene("grid", (*tracks, upright), {**pictures, "t9": camera(360, 640, 9)})


def _portrait_canvas() -> Scene:
    tracks, pictures = people(5, size=(360, 640), speaking=0)
    return Scene("grid", tracks, pictures, "p0", 720, 1280)


def _light() -> Scene:
    tracks, pictures = people(6, muted=(0, 3), off=(2, 4), speaking=5)
    return Scene("grid-light", tracks, pictures, "p5")


def _names() -> Scene:
    names = (
        "山田 太郎", "محمد علي", "Дмитрий Шостакович", "Tom 🎉🚀", "김민수",
        "Bartholomew Featherstonehaugh-Cholmondeley of the Northern Territories", "शाहरुख़ ख़ान", "Zoë ❤️", "",
    )  # fmt: skip
    tracks, pictures = people(9, names=names, off=(0, 1, 2, 6, 8), muted=(3, 5))
    return Scene("grid", tracks, pictures)


SCENES: Mapping[str, Callable[[], Scene]] = {
    "grid-1": lambda: _grid(1, size=(1280, 720)),
    "grid-2": lambda: _grid(2, speaking=0),
    "grid-3": lambda: _grid(3, muted=(1,)),
    "grid-4": lambda: _grid(4, speaking=3, muted=(0,)),
    "grid-6": lambda: _grid(6, speaking=2),
    "grid-9": lambda: _grid(9, size=(320, 180), muted=(4, 5)),
    "grid-16": lambda: _grid(16, size=(320, 180), speaking=6, off=(3, 11)),
    "speaker-5": _speaker,
    "screen-share": lambda: _sharing("grid"),
    "pip": _pip,
    "pip-share": lambda: _sharing("pip"),
    "single-speaker": lambda: Scene("single-speaker", *people(3, size=(1280, 720)), "p2"),
    "portraits": _portraits,
    "portrait-canvas": _portrait_canvas,
    "light": _light,
    "speaker-light": lambda: Scene("speaker-light", *people(4, off=(0,)), "p0"),
    "names": _names,
    "empty": lambda: Scene("grid", (), {}),
    "empty-light": lambda: Scene("grid-light", (), {}),
}
