"""The object store of one attempt: it writes only while the job is surely this worker's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from server.ports.jobs import JobRun
from server.ports.storage import ObjectStore, StoredObject

# Key of a job's result: from its first write on objects of it may exist, for whoever cleans up after it.
PUBLISHING = "publishing"
# Far below any lease: whoever was suspended for a lease asks again before the next write.
TRUST_SEC = 0.5


class FencedStore:
    """`ObjectStore` whose writes and deletions also raise OwnershipLost.

    Keys hold no attempt, so a worker that was suspended past its lease and wakes up would put its older playlist over
    the one that another worker has finished meanwhile. Ownership is confirmed before a write unless that was done in
    the last `TRUST_SEC` seconds, before a deletion always. The first write is noted on the job beforehand.
    """

    def __init__(self, store: ObjectStore, run: JobRun) -> None:
        self._store = store
        self._run = run
        self._asking = asyncio.Lock()
        self._confirmed_at = float("-inf")
        self._noted = bool(run.job.result.get(PUBLISHING))

    @property
    def has_written(self) -> bool:
        """Whether this attempt or an earlier one may have written anything."""
        return self._noted

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        await self._note()
        await self._confirm(TRUST_SEC)
        await self._store.put_file(key, path, content_type=content_type)

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        await self._note()
        await self._confirm(TRUST_SEC)
        await self._store.put_bytes(key, data, content_type=content_type)

    async def delete(self, keys: Iterable[str]) -> None:
        await self._confirm(0.0)
        await self._store.delete(keys)

    async def end_uploads(self, folder: str = "") -> None:
        await self._confirm(0.0)
        await self._store.end_uploads(folder)

    async def get_bytes(self, key: str) -> bytes:
        return await self._store.get_bytes(key)

    async def get_file(self, key: str, path: Path) -> None:
        await self._store.get_file(key, path)

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        return await self._store.list(folder)

    def url(self, key: str) -> str:
        return self._store.url(key)

    async def presign(self, key: str, expires_sec: int) -> str:
        return await self._store.presign(key, expires_sec)

    async def _note(self) -> None:
        async with self._asking:
            if not self._noted:
                await self._run.save(result={PUBLISHING: True})
                self._noted = True

    async def _confirm(self, max_age_sec: float) -> None:
        # One question at a time; who waited for it needs no other.
        async with self._asking:
            asked_at = time.monotonic()
            if asked_at - self._confirmed_at >= max_age_sec:
                await self._run.save()
                self._confirmed_at = asked_at
