"""The mixer: samples keep their place, drift is followed, nothing is clipped, silence costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.recorder.mixer import HZ, Sound, Voice, bend, mix

BLOCK = HZ // 100


def ramp(start: int, count: int = BLOCK) -> np.ndarray:
    """Samples that tell their position."""
    values = ((np.arange(start, start + count) % 10_000) + 1).astype(np.int16)
    return np.stack([values, values], axis=1)


def tone(count: int, value: int) -> np.ndarray:
    return np.full((count, 2), value, np.int16)


def test_samples_stay_where_they_arrived() -> None:
    sound = Sound()
    for number in range(10):
        sound.put(ramp(number * BLOCK), (number + 1) * BLOCK)
    samples = sound.take(2 * BLOCK, 3 * BLOCK)
    assert samples is not None
    assert (samples[:, 0] == ramp(2 * BLOCK, 3 * BLOCK)[:, 0]).all()


def test_uneven_arrival_moves_nothing() -> None:
    """Blocks that come late in a bunch follow each other without a hole."""
    sound = Sound()
    for number in range(10):
        late = 3 * BLOCK if number % 4 == 1 else 0
        sound.put(ramp(number * BLOCK), (number + 1) * BLOCK + late)
    samples = sound.take(0, 10 * BLOCK)
    assert samples is not None
    assert (samples[:, 0] == ramp(0, 10 * BLOCK)[:, 0]).all()


def test_what_is_missing_is_silence() -> None:
    sound = Sound()
    sound.put(tone(BLOCK, 1000), BLOCK)
    samples = sound.take(0, 3 * BLOCK)
    assert samples is not None
    assert (samples[:BLOCK] == 1000).all()
    assert not samples[BLOCK:].any()
    assert sound.take(3 * BLOCK, BLOCK) is None


def test_what_comes_too_late_is_left_out_and_counted() -> None:
    sound = Sound()
    sound.put(tone(BLOCK, 1000), BLOCK)
    sound.take(0, 2 * BLOCK)
    sound.put(tone(2 * BLOCK, 1000), 3 * BLOCK)
    assert sound.late == BLOCK
    samples = sound.take(2 * BLOCK, BLOCK)
    assert samples is not None
    assert (samples == 1000).all()


@pytest.mark.parametrize("per_block", [-1, 1])
def test_a_drifting_source_is_followed(per_block: int) -> None:
    """A clock that is 0.2 % off: no more than some milliseconds away after twenty seconds."""
    sound = Sound()
    position = 0
    for _ in range(2000):
        position += BLOCK + per_block
        sound.put(tone(BLOCK, 1000), position)
        sound.take(position - 4 * BLOCK, BLOCK)
    assert sound._end is not None
    assert abs(position - sound._end) < HZ * 6 // 1000


def test_after_a_gap_it_is_where_it_belongs_again() -> None:
    sound = Sound()
    for number in range(100):
        sound.put(tone(BLOCK, 1000), (number + 1) * BLOCK)
    for number in range(200, 300):
        sound.put(tone(BLOCK, 1000), (number + 1) * BLOCK)
    assert sound._end == 300 * BLOCK


def test_nobody_listening_costs_no_memory_and_loses_only_what_is_old() -> None:
    sound = Sound()
    for number in range(500):
        sound.put(ramp(number * BLOCK), (number + 1) * BLOCK)
    samples = sound.take(490 * BLOCK, 10 * BLOCK)
    assert samples is not None
    assert (samples[:, 0] == ramp(490 * BLOCK, 10 * BLOCK)[:, 0]).all()


def test_who_takes_too_late_gets_silence_and_then_what_belongs_there() -> None:
    """Newer samples took the place of those that were due four seconds ago."""
    sound = Sound()
    for number in range(400):
        sound.put(ramp(number * BLOCK), (number + 1) * BLOCK)
    assert sound.take(50 * BLOCK, BLOCK) is None
    samples = sound.take(200 * BLOCK, BLOCK)
    assert samples is not None
    assert (samples[:, 0] == ramp(200 * BLOCK)[:, 0]).all()


def test_loudness_is_told() -> None:
    sound = Sound()
    assert sound.level() == 0
    sound.put(tone(BLOCK, 16384), BLOCK)
    assert sound.level() == pytest.approx(0.5)
    assert sound.level() == 0


def voice(left: int, right: int, channel: str = "both") -> Voice:
    sound = Sound()
    sound.put(np.tile(np.array([[left, right]], np.int16), (BLOCK, 1)), BLOCK)
    return Voice(sound, channel)


def test_voices_are_added() -> None:
    mixed = mix({"a": voice(1000, 2000), "b": voice(10, 20)}, 0, BLOCK)
    assert mixed.dtype == np.int16
    assert (mixed == [1010, 2020]).all()


def test_sides() -> None:
    """LK-33: a voice of one side is heard there alone, both its channels together."""
    mixed = mix({"a": voice(1000, 3000, "left"), "b": voice(500, 500, "right")}, 0, BLOCK)
    assert (mixed == [2000, 500]).all()


def test_nobody_is_silence() -> None:
    assert not mix({}, 0, BLOCK).any()
    assert mix({}, 0, BLOCK).shape == (BLOCK, 2)


def test_too_loud_is_bent_and_keeps_its_order() -> None:
    total = np.array([[0, 20_000], [25_000, -25_000], [60_000, -60_000], [200_000, -200_000]], np.int32)
    bent = bend(total).astype(int)
    assert bent[0].tolist() == [0, 20_000]
    assert (bent[:, 1] == np.where(np.arange(4) > 0, -bent[:, 0], bent[:, 1])).all()
    assert 24_000 < bent[1, 0] < bent[2, 0] <= bent[3, 0] <= 32_767
