"""Keeps sound and picture of a participant together: how long the SDK held each back decides how long we do.

The SDK's jitter buffers delay sound and pictures by different and changing amounts, and tell how much. A picture is held
back by what its sound was delayed more; sound is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.recorder.timeline import HOLD_SEC

# What the SDK does not count, measured with flashes and beeps that were captured at the same moment.
_SOUND_LATER_SEC = -0.013
_MAX_HOLD_SEC = 0.4
# So far apart they may be for a while, which nobody sees: following each swing of a jitter buffer at once would repeat a
# picture and leave out another for it, which is seen.
_PLAY_SEC = 0.015
# Of what is left, this part is made up for each time.
_CREEP = 0.1

Delays = Mapping[str, tuple[float, int]]


class LipSync:
    """Fed about once a second with the SDK's sums; says by how much pictures are to be held back."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}
        self._now: dict[str, float] = {}
        self.holds: dict[str, float] = {}
        self.offset_ms = 0.0

    def measure(self, delays: Delays, pairs: Mapping[str, str]) -> None:
        """`pairs` maps the sid of a picture to that of the sound it belongs to."""
        for sid, (total, count) in delays.items():
            before, counted = self._before.get(sid, (0.0, 0))
            if count > counted:
                self._now[sid] = (total - before) / (count - counted)
        self._before = dict(delays)
        self.offset_ms = max((self._error(*pair) for pair in pairs.items()), key=abs, default=0.0) * 1000
        self.holds = {video: self._hold(video, audio) for video, audio in pairs.items()}

    def _wanted(self, video: str, audio: str) -> float:
        if video not in self._now or audio not in self._now:
            return HOLD_SEC
        hold = HOLD_SEC + self._now[audio] - self._now[video] + _SOUND_LATER_SEC
        return min(max(hold, 0.0), _MAX_HOLD_SEC)

    def _hold(self, video: str, audio: str) -> float:
        wanted, old = self._wanted(video, audio), self.holds.get(video, HOLD_SEC)
        near = min(max(old, wanted - _PLAY_SEC), wanted + _PLAY_SEC)
        return near + (wanted - near) * _CREEP

    def _error(self, video: str, audio: str) -> float:
        """Sound minus picture as it was until now, in seconds."""
        return self._wanted(video, audio) - self.holds.get(video, HOLD_SEC)
