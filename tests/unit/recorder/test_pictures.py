"""Which picture of a track is due."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from adapters.recorder import pictures as module
from adapters.recorder.lipsync import _MAX_HOLD_SEC
from adapters.recorder.pictures import Pictures
from adapters.recorder.timeline import _LATE_SEC

WIDTH, HEIGHT = 40, 20


class Raw:
    """A picture whose luma is its number, but for a spot of `light`, taken at `seconds`."""

    def __init__(
        self,
        number: int,
        seconds: float,
        rotation: int = 0,
        light: int = 255,
        size: tuple[int, int] = (WIDTH, HEIGHT),
    ) -> None:
        self.width, self.height = size
        self.y = np.full((self.height, self.width), number, np.uint8)
        self.y[0, 0] = light
        self.u = self.v = np.full((self.height // 2, self.width // 2), 128, np.uint8)
        self.rotation = rotation
        self.taken_us = int(seconds * 1e6)


def filled(*seconds: float) -> Pictures:
    pictures = Pictures()
    for number, taken in enumerate(seconds):
        pictures.put(Raw(number, taken), taken)
    return pictures


def number(pictures: Pictures, due: float) -> int:
    picture = pictures.pick(due)
    assert picture is not None
    return int(picture.planes[0][1, 1])


def test_none_before_the_first() -> None:
    assert Pictures().pick(1.0) is None


def test_the_first_is_shown_before_its_time() -> None:
    pictures = filled(1.0)
    assert number(pictures, 0.5) == 0
    assert number(pictures, 1.5) == 0


def test_the_newest_that_is_due() -> None:
    pictures = filled(1.0, 1.1, 1.2, 1.3)
    assert number(pictures, 1.25) == 2
    assert pictures.skipped == 2
    assert number(pictures, 1.28) == 2


def test_the_same_picture_keeps_its_version() -> None:
    pictures = filled(1.0)
    first, second = pictures.pick(1.1), pictures.pick(1.2)
    assert first is second


def test_two_clocks_that_tick_together_show_each_picture_once() -> None:
    """Jitter around the very moment of looking repeats and skips nothing."""
    pictures = Pictures()
    jitter = np.random.default_rng(1).uniform(-0.004, 0.004, 300)
    seen = []
    for frame in range(300):
        pictures.put(Raw(frame % 250, frame / 30 + jitter[frame]), frame / 30 + jitter[frame])
        seen.append(number(pictures, frame / 30))
    assert pictures.skipped == 0
    steps = {(after - before) % 250 for before, after in itertools.pairwise(seen)}
    assert steps == {1}


@pytest.mark.parametrize("phase", np.arange(0, 1, 0.1))
def test_times_that_swing_change_the_turn_once_at_most(phase: float) -> None:
    """As the SDK's do under load: mostly early by a few ms, seldom late by many. No going back and forth."""
    swing = np.random.default_rng(2).triangular(-0.007, -0.002, 0.018, 900)
    times = (np.arange(900) + phase) / 30 + swing
    pictures = Pictures()
    seen: list[int] = []
    for frame, taken in enumerate(times):
        pictures.put(Raw(frame % 250, taken), taken)
        if frame > 4:
            seen.append(number(pictures, (frame - 3.5) / 30))
    steps = [(after - before) % 250 for before, after in itertools.pairwise(seen)]
    assert sum(step != 1 for step in steps) <= 1


def test_a_foreign_clock_is_not_believed() -> None:
    pictures = Pictures()
    pictures.put(Raw(7, 123456.0), 1.0)
    assert number(pictures, 1.0) == 7


def test_old_pictures_give_way() -> None:
    pictures = filled(*(index / 30 for index in range(100)))
    assert number(pictures, 0.0) == 97 - int(module._KEPT_SEC * 30)
    assert pictures.arrived == 100


def test_large_pictures_are_not_kept_for_a_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as they may be held back they are, whatever they take."""
    monkeypatch.setattr(module, "_KEPT_BYTES", 20 * WIDTH * HEIGHT * 3 // 2)
    pictures = filled(*(index / 64 for index in range(240)))
    assert number(pictures, 0.0) == 237 - int(module._HELD_SEC * 64)


@pytest.mark.parametrize("behind", [0.5, 1.0, 2.5])
def test_who_looks_later_than_any_is_kept_still_sees_them_move(
    behind: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    pictures = Pictures()
    seen = []
    for frame in range(240):
        pictures.put(Raw(frame, frame / 32), frame / 32)
        if frame >= 100:
            seen.append(number(pictures, frame / 32 - behind))
    assert {after - before for before, after in itertools.pairwise(seen)} == {1}
    assert 100 - seen[0] == 17 + (behind > module._HELD_SEC) * 10


@pytest.mark.parametrize("fps", [5, 15, 30, 60])
def test_a_timeline_may_lag_while_pictures_are_held_back(fps: int) -> None:
    """What it is allowed to be late by, and what lip sync may ask for, are still at hand together."""
    behind = _MAX_HOLD_SEC + _LATE_SEC
    pictures = Pictures()
    seen = []
    for frame in range(6 * fps):
        pictures.put(Raw(frame % 250, frame / fps), frame / fps)
        if frame / fps >= 2 * behind:
            seen.append(number(pictures, frame / fps - behind))
    assert {(after - before) % 250 for before, after in itertools.pairwise(seen)} == {1}


def test_a_turned_picture_is_set_upright() -> None:
    """A quarter turn clockwise: the upper left corner comes to the upper right."""
    pictures = Pictures()
    pictures.put(Raw(0, 1.0, rotation=1), 1.0)
    picture = pictures.pick(1.0)
    assert picture is not None
    assert pictures.size == (HEIGHT, WIDTH)
    assert (picture.width, picture.height) == (HEIGHT, WIDTH)
    assert picture.planes[0].shape == (WIDTH, HEIGHT)
    assert picture.planes[0][0, HEIGHT - 1] == 255


def test_black_that_the_sdk_makes_up_is_not_shown() -> None:
    """A track that is switched off and on again comes with pictures without light, in its own size."""
    pictures = filled(1.0)
    pictures.switch(on=False)
    pictures.put(Raw(5, 1.1), 1.1)
    pictures.put(Raw(0, 1.2, light=0), 1.2)
    pictures.switch(on=True)
    pictures.put(Raw(0, 1.3, light=0), 1.3)
    pictures.put(Raw(7, 1.4), 1.4)
    assert pictures.arrived == 3
    assert number(pictures, 1.3) == 5
    assert number(pictures, 1.4) == 7


def test_black_is_shown_when_nothing_was_switched() -> None:
    pictures = filled(1.0)
    pictures.put(Raw(0, 1.1, light=0), 1.1)
    assert pictures.arrived == 2


def test_a_farewell_is_no_picture() -> None:
    """LiveKit ends a track that is muted or taken back with a tiny one."""
    pictures = filled(1.0)
    pictures.put(Raw(3, 1.1, size=(8, 8)), 1.1)
    assert pictures.size == (WIDTH, HEIGHT)
    assert number(pictures, 1.2) == 0


def test_nothing_from_before_a_mute_is_seen_after_it() -> None:
    pictures = filled(1.0, 1.1)
    assert number(pictures, 1.0) == 0
    pictures.forget()
    assert pictures.pick(1.2) is None
