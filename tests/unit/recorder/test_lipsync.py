"""Pictures are held back by what their sound was delayed more."""

from __future__ import annotations

import pytest

from adapters.recorder.lipsync import _PLAY_SEC, _SOUND_LATER_SEC, LipSync
from adapters.recorder.timeline import HOLD_SEC

PAIRS = {"cam": "mic"}
SAMPLES, FRAMES = 48_000, 30


class Room:
    """The SDK's sums of a camera and a microphone, second after second."""

    def __init__(self) -> None:
        self.lips = LipSync()
        self._seconds = 0
        self._sums = {"cam": 0.0, "mic": 0.0}

    def passes(self, *, cam: float, mic: float, seconds: int = 1) -> float:
        """With these delays; the hold at the end."""
        for _ in range(seconds):
            self._seconds += 1
            self._sums["cam"] += cam * FRAMES
            self._sums["mic"] += mic * SAMPLES
            self.lips.measure(
                {
                    "cam": (self._sums["cam"], self._seconds * FRAMES),
                    "mic": (self._sums["mic"], self._seconds * SAMPLES),
                },
                PAIRS,
            )
        return self.lips.holds["cam"]


def wanted(*, cam: float, mic: float) -> float:
    return HOLD_SEC + mic - cam + _SOUND_LATER_SEC


def test_as_long_as_nothing_is_known_the_usual_hold() -> None:
    lips = LipSync()
    lips.measure({}, PAIRS)
    assert lips.holds == {"cam": HOLD_SEC}
    assert lips.offset_ms == 0


def test_a_sound_that_waits_longer_holds_its_picture() -> None:
    """At once as far as anybody could see, and then the rest; what they were apart until then is told."""
    room = Room()
    first = room.passes(cam=0.02, mic=0.1)
    assert abs(first - wanted(cam=0.02, mic=0.1)) <= _PLAY_SEC
    assert room.lips.offset_ms == pytest.approx((wanted(cam=0.02, mic=0.1) - HOLD_SEC) * 1000)
    assert room.passes(cam=0.02, mic=0.1, seconds=30) == pytest.approx(wanted(cam=0.02, mic=0.1), abs=0.001)
    assert room.lips.offset_ms == pytest.approx(0, abs=1.5)


def test_only_what_came_since_counts() -> None:
    room = Room()
    room.passes(cam=0.02, mic=0.2, seconds=60)
    assert abs(room.passes(cam=0.02, mic=0.02) - wanted(cam=0.02, mic=0.02)) <= _PLAY_SEC


def test_a_swing_of_the_jitter_buffer_repeats_no_picture() -> None:
    """It takes a whole frame's time of holds to repeat one."""
    room = Room()
    settled = room.passes(cam=0.02, mic=0.04, seconds=60)
    holds = [room.passes(cam=0.02, mic=0.04 + swing) for swing in (0.012, -0.01, 0.014, -0.014, 0.0) * 4]
    assert max(abs(hold - settled) for hold in holds) < 0.004


def test_a_hold_has_its_limits() -> None:
    room = Room()
    assert room.passes(cam=1.0, mic=0.02, seconds=60) == pytest.approx(0, abs=0.001)
    assert room.passes(cam=0.02, mic=2.0, seconds=60) == pytest.approx(0.4, abs=0.001)
