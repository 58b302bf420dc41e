"""Whether LiveKit answers, asked at most every few seconds however many want to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from server.errors import ServiceError
from server.ports.livekit import LiveKitSource

KEPT_SEC = 5.0
# A health check must answer within its own deadline, whatever LiveKit does.
_TIMEOUT_SEC = 3.0


class LiveKitHealth:
    """Keeps the last answer for `KEPT_SEC`; of several that ask at once one calls LiveKit."""

    def __init__(self, source: LiveKitSource, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Why LiveKit cannot be used, without secrets; None if it answers and takes our key."""
        try:
            # Costs nothing, and where there is no LiveKit it knows at once.
            await self._source.address()
        except ServiceError as error:
            return error.message
        async with self._lock:
            if self._monotonic() - self._asked_at >= KEPT_SEC:
                self._problem = await self._ask()
                self._asked_at = self._monotonic()
            return self._problem

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_SEC):
                return (await self._source.status()).problem
        except TimeoutError:
            return f"LiveKit did not answer within {_TIMEOUT_SEC:g} s"
