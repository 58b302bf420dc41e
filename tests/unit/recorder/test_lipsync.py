"""Pictures are held back by what their sound was delayed more."""

from __future__ import annotations

import pytest

from adapters.recorder.lipsync import _PLAY_SEC, _SOUND_LATER_SEC, LipSync
from adapters.recorder.timeline import HOLD_SEC

PAIRS = {"cam": "mic"}


def test_as_long_as_nothing_is_known_the_usual_hold() -> None:
    lips = LipSync()
    lips.measure({}, PAIRS)
    assert lips.holds == {"cam": HOLD_SEC}
    assert lips.offset_ms == 0


def test_a_sound_that_waits_longer_holds_its_picture() -> None:
    lips = LipSync()
    lips.measure({"cam": (1.0, 50), "mic": (4800 * 0.08, 4800)}, PAIRS)
    assert lips.holds["cam"] == pytest.approx(HOLD_SEC + 0.08 - 0.02 + _SOUND_LATER_SEC - _PLAY_SEC)
    assert lips.offset_ms == pytest.approx((0.06 + _SOUND_LATER_SEC) * 1000)


def test_only_what_came_since_counts() -> None:
    lips = LipSync()
    lips.measure({"cam": (1.0, 50), "mic": (384.0, 4800)}, PAIRS)
    lips.measure({"cam": (2.0, 100), "mic": (384.0 + 4800 * 0.02, 9600)}, PAIRS)
    held = lips.holds["cam"]
    assert held == pytest.approx(HOLD_SEC + _SOUND_LATER_SEC + _PLAY_SEC)
    lips.measure({"cam": (3.0, 150), "mic": (384.0 + 4800 * 0.04, 14400)}, PAIRS)
    assert lips.offset_ms == pytest.approx((HOLD_SEC + _SOUND_LATER_SEC - held) * 1000)


def test_small_changes_repeat_no_picture() -> None:
    lips = LipSync()
    lips.measure({"cam": (1.0, 50), "mic": (96.0, 4800)}, PAIRS)
    before = lips.holds["cam"]
    lips.measure({"cam": (2.0, 100), "mic": (96.0 + 4800 * 0.032, 9600)}, PAIRS)
    assert lips.holds["cam"] == before
    lips.measure({"cam": (3.0, 150), "mic": (96.0 + 4800 * 0.1, 14400)}, PAIRS)
    assert lips.holds["cam"] > before


def test_a_hold_has_its_limits() -> None:
    lips = LipSync()
    lips.measure({"cam": (50.0, 50), "mic": (96.0, 4800)}, PAIRS)
    assert lips.holds["cam"] == pytest.approx(_PLAY_SEC)
    lips.measure({"cam": (50.0, 100), "mic": (96.0 + 9600.0, 9600)}, PAIRS)
    assert lips.holds["cam"] == pytest.approx(0.4 - _PLAY_SEC)
