"""The smooth change from one layout to the next: where a tile is between its old place and its new one."""

from __future__ import annotations

from dataclasses import dataclass

from server.domain.layout import Rect

DURATION_SEC = 0.28
# A tile that appears grows from this part of its size.
_APPEARS_AT = 0.86


@dataclass(frozen=True, slots=True)
class Movement:
    """From `start` to `end`, begun at `began` seconds; it is quick first and slow at the end."""

    start: Rect
    end: Rect
    began: float

    def at(self, now: float) -> Rect:
        progress = (now - self.began) / DURATION_SEC
        if progress >= 1:
            return self.end
        eased = 1 - (1 - max(0.0, progress)) ** 2
        return Rect(
            _between(self.start.x, self.end.x, eased),
            _between(self.start.y, self.end.y, eased),
            max(2, _between(self.start.width, self.end.width, eased)),
            max(2, _between(self.start.height, self.end.height, eased)),
        )

    def is_over(self, now: float) -> bool:
        return now - self.began >= DURATION_SEC


def appearance(rect: Rect, began: float) -> Movement:
    """A new tile grows into its place."""
    width, height = _even(rect.width * _APPEARS_AT), _even(rect.height * _APPEARS_AT)
    start = Rect(
        rect.x + _even((rect.width - width) / 2), rect.y + _even((rect.height - height) / 2), width, height
    )
    return Movement(start, rect, began)


def _between(start: int, end: int, part: float) -> int:
    return _even(start + (end - start) * part)


def _even(length: float) -> int:
    return int(length) // 2 * 2
