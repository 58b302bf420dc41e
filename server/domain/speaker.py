"""Who is the active speaker: chosen with hysteresis from sound levels, so that pictures change with turns, not coughs."""

from __future__ import annotations

from collections.abc import Mapping

# A level below this is silence (levels are LiveKit's, 0–1).
SPEAKS_FROM = 0.01
# A speaker keeps the stage at least so long, unless they leave.
HOLD_SEC = 1.5
# Another voice takes it after speaking so long while the speaker is silent …
TAKES_SILENCE_AFTER_SEC = 0.3
# … or, over a speaker who goes on, after being clearly louder for so long.
TAKES_VOICE_AFTER_SEC = 1.2
CLEARLY_LOUDER = 1.5
# Pauses between words count as speech.
PAUSE_SEC = 0.8
# Levels jump from syllable to syllable: what counts is about their mean over this long.
_SMOOTHING_SEC = 0.5


class SpeakerChoice:
    """Keeps one speaker from the levels reported; nobody speaking leaves the last one chosen.

    Call `update` at a steady rate, some five to thirty times a second, with the newest levels known.
    """

    def __init__(self) -> None:
        self._speaker: str | None = None
        self._chosen_at = float("-inf")
        self._updated_at = float("-inf")
        self._levels: dict[str, float] = {}
        self._spoke_at: dict[str, float] = {}
        self._turn_began: dict[str, float] = {}
        self._louder_since: dict[str, float] = {}

    @property
    def speaker(self) -> str | None:
        return self._speaker

    def speaking(self, now: float) -> frozenset[str]:
        """Everybody who speaks, pauses between words included: whose tiles have a border."""
        return frozenset(who for who, at in self._spoke_at.items() if now - at < PAUSE_SEC)

    def update(self, now: float, levels: Mapping[str, float]) -> str | None:
        """Take the levels (0–1) by identity at `now` seconds; who is missing is silent. Returns the speaker."""
        newest_part = min(1.0, (now - self._updated_at) / _SMOOTHING_SEC)
        self._updated_at = now
        for who in {*levels, *self._levels}:
            self._listen(now, who, levels.get(who, 0.0), newest_part)
        rival = self._rival(now)
        if rival is not None:
            self._speaker, self._chosen_at = rival, now
            self._louder_since.clear()
        return self._speaker

    def forget(self, identity: str) -> None:
        """Somebody left: the stage is free at once if it was theirs."""
        for kept in (self._levels, self._spoke_at, self._turn_began, self._louder_since):
            kept.pop(identity, None)
        if identity == self._speaker:
            self._speaker, self._chosen_at = None, float("-inf")

    def _listen(self, now: float, who: str, level: float, newest_part: float) -> None:
        before = self._levels.get(who, level)
        self._levels[who] = before + (level - before) * newest_part
        if level < SPEAKS_FROM:
            if now - self._spoke_at.get(who, float("-inf")) >= PAUSE_SEC:
                for kept in (self._levels, self._spoke_at, self._turn_began, self._louder_since):
                    kept.pop(who, None)
            return
        self._turn_began.setdefault(who, now)
        self._spoke_at[who] = now

    def _rival(self, now: float) -> str | None:
        """Who takes the stage now, the loudest of those who may."""
        for who in self._turn_began:
            if who != self._speaker and self._is_clearly_louder(who):
                self._louder_since.setdefault(who, now)
            else:
                self._louder_since.pop(who, None)
        if self._speaker is not None and now - self._chosen_at < HOLD_SEC:
            return None
        rivals = [who for who in self._turn_began if who != self._speaker and self._may_take(now, who)]
        return max(rivals, key=lambda who: (self._levels[who], who), default=None)

    def _is_clearly_louder(self, who: str) -> bool:
        return self._levels[who] > CLEARLY_LOUDER * self._levels.get(self._speaker or "", 0.0)

    def _may_take(self, now: float, who: str) -> bool:
        if self._speaker is None:
            return True
        if self._speaker in self._turn_began:
            return now - self._louder_since.get(who, now) >= TAKES_VOICE_AFTER_SEC
        return self._spoke_at[who] - self._turn_began[who] >= TAKES_SILENCE_AFTER_SEC
