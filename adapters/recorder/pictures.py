"""The last pictures of one track, and which of them is due."""

from __future__ import annotations

import itertools
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adapters.compositor.picture import Picture

if TYPE_CHECKING:
    from adapters.compositor.picture import Plane

# As long as pictures may be held back (`lipsync`) and the timeline may lag for somebody who watches live; and as long as it
# may lag at all, while they are not too many bytes for a machine that lags all the time.
_HELD_SEC = 0.8
_KEPT_SEC = 1.95
_KEPT_BYTES = 24 << 20
# So much a picture may come early or late without another being taken in its place: two clocks that tick almost
# together would otherwise show one picture twice and leave out the next, again and again. The SDK's times swing by some
# 18 ms, in which each picture shown instead of its neighbour must not call the neighbour back.
_PLAY_SEC = 0.014
# The SDK's clock is this process's monotonic one; a source whose times are elsewhere is taken by arrival.
_SANE_SEC = 0.5
# LiveKit's own farewell to a track that is muted or taken back is 2×2 or 8×8.
_FAREWELL_SIZE = 16
# The SDK's stand-in for a track that is switched off has no light at all, which cameras do not send; so many lines and
# columns apart is looked.
_LOOK = 8

_versions = itertools.count(1)


class Decoded(Protocol):
    """A picture as the SDK gives it (`adapters.recorder.tap.RawPicture`)."""

    y: Plane
    u: Plane
    v: Plane
    width: int
    height: int
    rotation: int
    taken_us: int


class Pictures:
    """Filled from a thread of the SDK, read by the one that composes. Times are seconds of `time.monotonic`."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Decoded]] = deque()
        self._lock = Lock()
        self._overdue: Decoded | None = None
        self._shown: Picture | None = None
        self._on = True
        self._doubtful = True
        self.arrived = 0
        self.skipped = 0
        self.size = (0, 0)

    def put(self, raw: Decoded, now: float) -> None:
        if self._is_made_up(raw):
            return
        taken = raw.taken_us / 1e6
        if abs(now - taken) > _SANE_SEC:
            taken = now
        turned = raw.rotation % 2 == 1
        self.size = (raw.height, raw.width) if turned else (raw.width, raw.height)
        with self._lock:
            self.arrived += 1
            self._waiting.append((taken, raw))
            # The last one before that is due still.
            while len(self._waiting) > 1 and self._waiting[1][0] < now - self._kept_sec(raw):
                self.skipped += self._overdue is not None
                self._overdue = self._waiting.popleft()[1]

    def _kept_sec(self, raw: Decoded) -> float:
        few = len(self._waiting) * raw.width * raw.height * 3 // 2 <= _KEPT_BYTES
        return _KEPT_SEC if few else _HELD_SEC

    def pick(self, due: float) -> Picture | None:
        """The picture to show at `due`: the newest taken until then, but each in turn where that is nearly so."""
        chosen: Decoded | None = None
        with self._lock:
            overdue, self._overdue = self._overdue, None
            waiting = self._waiting
            while waiting:
                taken, raw = waiting[0]
                if taken > due + (_PLAY_SEC if chosen is None else -_PLAY_SEC):
                    break
                if chosen is not None:
                    self.skipped += 1
                chosen = raw
                waiting.popleft()
        # Who looks later than any is kept sees the last one that gave way.
        chosen = chosen or overdue
        if chosen is not None:
            self._shown = _upright(chosen)
        elif self._shown is None:
            self._shown = self._first()
        return self._shown

    def _first(self) -> Picture | None:
        """Something to show at once; it stays in line for its time."""
        with self._lock:
            raw = self._waiting[0][1] if self._waiting else None
        return _upright(raw) if raw is not None else None

    def switch(self, *, on: bool) -> None:
        """The track is asked for, or not for now: what is black until it is there again is none of its pictures."""
        self._on = on
        self._doubtful = True

    def forget(self) -> None:
        """The camera was switched off: what is here is not to be seen when it is on again."""
        self.switch(on=False)
        with self._lock:
            self._waiting.clear()
            self._overdue = None
        self._shown = None

    def _is_made_up(self, raw: Decoded) -> bool:
        if max(raw.width, raw.height) <= _FAREWELL_SIZE:
            return True
        if not self._doubtful:
            return False
        black = not raw.y[::_LOOK, ::_LOOK].any()
        # Some that were on their way come after it was switched off.
        self._doubtful = black or not self._on
        return black


def _upright(raw: Decoded) -> Picture:
    planes = (raw.y, raw.u, raw.v)
    if raw.rotation:
        y, u, v = (np.ascontiguousarray(np.rot90(plane, -raw.rotation)) for plane in planes)
        planes = (y, u, v)
    height, width = planes[0].shape
    return Picture(width, height, planes, next(_versions))
