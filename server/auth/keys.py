"""API keys by digest: a short-lived cache in front of the database, and `last_used_at` off the request path."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from server.clock import Clock
from server.domain.project import ApiKey
from server.ports.unit_of_work import Database

# A key revoked in another process works at most this much longer (design section 13).
CACHED_FOR_SEC = 5.0
TOUCHED_EVERY_SEC = 60.0
_CACHE_LIMIT = 10_000
# Longer than any key; what is longer is not worth a digest.
_LONGEST = 512

_log = structlog.get_logger("auth")


@dataclass(slots=True)
class _Cached:
    key: ApiKey
    until: float


class KeyDirectory:
    """Finds API keys. Only valid keys are cached, for `CACHED_FOR_SEC`; `forget` drops one at once."""

    def __init__(
        self, database: Database, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._cached: dict[str, _Cached] = {}
        self._touched: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Counts revocations, so that a look-up that began before one does not cache what it found.
        self._revocations = 0

    async def find(self, secret: str) -> ApiKey | None:
        """The key whose secret this is, None if there is none or it is revoked."""
        if not secret or len(secret) > _LONGEST:
            return None
        digest = digest_of(secret)
        now = self._monotonic()
        cached = self._cached.get(digest)
        if cached is not None and cached.until > now:
            key: ApiKey | None = cached.key
        else:
            key = await self._look_up(digest, now)
        if key is not None and self._touched.get(key.id, -TOUCHED_EVERY_SEC) + TOUCHED_EVERY_SEC <= now:
            self._touched[key.id] = now
            self._touch_later(key.id)
        return key

    def forget(self, key_id: str) -> None:
        """Stop accepting a key in this process at once; call it after a revocation is committed."""
        self._revocations += 1
        for digest in [digest for digest, cached in self._cached.items() if cached.key.id == key_id]:
            del self._cached[digest]
        self._touched.pop(key_id, None)

    async def aclose(self) -> None:
        """Wait for what is still being written."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_up(self, digest: str, now: float) -> ApiKey | None:
        revocations = self._revocations
        async with self._database.read() as unit:
            key = await unit.keys.find_api_key(digest)
        if key is None or key.revoked_at is not None:
            self._cached.pop(digest, None)
            return None
        if revocations == self._revocations:
            if len(self._cached) >= _CACHE_LIMIT:
                self._cached.clear()
                self._touched.clear()
            self._cached[digest] = _Cached(key, now + CACHED_FOR_SEC)
        return key

    def _touch_later(self, key_id: str) -> None:
        task = asyncio.create_task(self._touch(key_id), name=f"touch-{key_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _touch(self, key_id: str) -> None:
        try:
            async with self._database.begin() as unit:
                await unit.keys.touch_api_key(key_id, self._clock.now())
                await unit.commit()
        except Exception:  # noqa: BLE001 - a lost time of last use harms nobody
            _log.warning("key not touched", key_id=key_id, exc_info=True)


def digest_of(secret: str) -> str:
    """SHA-256 hex, as `ApiKey.digest` stores it. Keys have over 190 bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
