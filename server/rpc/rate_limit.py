"""A token bucket per credential: how many calls a minute one key may make."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from server.context import Caller
from server.errors import Code, ServiceError

# Buckets of keys that have not called for longest go first; a forgotten bucket is a full one.
MAX_BUCKETS = 10_000


class RateLimit:
    """`per_minute` calls on average, as many at once. Per process: behind a balancer each API process counts its own."""

    def __init__(self, per_minute: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, caller: Caller) -> None:
        """Raise ServiceError resource_exhausted (429) with the seconds to wait. The operator is not limited."""
        if caller.key_id is None:
            return
        now = self._monotonic()
        tokens, since = self._buckets.pop(caller.key_id, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._per_second)
        self._buckets[caller.key_id] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait = math.ceil((1 - tokens) / self._per_second)
            raise ServiceError(Code.RESOURCE_EXHAUSTED, "too many calls with this key", retry_after_sec=wait)
