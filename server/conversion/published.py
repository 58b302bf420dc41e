"""The objects that one conversion has put into storage: checked when it is done, removed when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from server.conversion.fenced_store import PUBLISHING, FencedStore
from server.domain.hls import MASTER_NAME, PLAYLIST_NAME, THUMBNAIL_NAME
from server.ports.encoder import EncodeReport
from server.ports.storage import ObjectStore, StorageError

_SUBTITLES = "subtitles/"


class PublishedObjects:
    """The layout of VC-61 … VC-65 under the job's prefix.

    Only what a job wrote may be removed: keys hold no job id, so before its first write they may be another job's.
    `store` confirms the ownership before it deletes: another worker may be writing the same keys by now.
    """

    def __init__(self, store: FencedStore, renditions: Sequence[str]) -> None:
        self._store = store
        self._renditions = tuple(renditions)

    async def listed(self) -> dict[str, int]:
        """Segments in each rendition's stored playlist: what an earlier attempt has shown to viewers already."""
        counts = {}
        for name in self._renditions:
            with suppress(StorageError):
                counts[name] = (await self._store.get_bytes(f"{name}/{PLAYLIST_NAME}")).count(b"#EXTINF")
        return counts

    async def verify(self, report: EncodeReport, *, has_thumbnail: bool) -> None:
        """Everything is there in full size, and nothing of an earlier attempt is left over. Raise StorageError."""
        await asyncio.gather(
            *(self._verify_rendition(rendition.name, report) for rendition in report.renditions)
        )
        for key in (MASTER_NAME, *((THUMBNAIL_NAME,) if has_thumbnail else ())):
            if not any(found.key == key for found in await self._store.list(key)):
                raise StorageError(f"{key} is missing after its upload", retryable=True)

    async def _verify_rendition(self, name: str, report: EncodeReport) -> None:
        expected = {
            f"{name}/{segment.name}": segment.size
            for rendition in report.renditions
            if rendition.name == name
            for segment in rendition.segments
        }
        found = {stored.key: stored.size for stored in await self._store.list(f"{name}/")}
        for key, size in expected.items():
            if found.get(key) != size:
                raise StorageError(f"{key} is missing or incomplete after its upload", retryable=True)
        stale = [key for key in found if key.startswith(f"{name}/segment_") and key not in expected]
        if stale:
            await self._store.delete(stale)

    async def end_uploads(self) -> None:
        """Ends what earlier attempts left half uploaded, if any wrote at all. Raise OwnershipLost, StorageError."""
        if self._store.has_written:
            for folder in _folders(self._renditions):
                await self._store.end_uploads(folder)

    async def remove(self) -> None:
        """Removes the whole layout, if anything of it was written. Raise OwnershipLost."""
        if self._store.has_written:
            await remove_layout(self._store, self._renditions)


def _folders(renditions: Sequence[str]) -> list[str]:
    return [f"{name}/segment_" for name in renditions] + [_SUBTITLES]


async def remove_layout(store: ObjectStore, renditions: Sequence[str]) -> None:
    """Playlists first, so that nothing names what is gone."""
    folders = _folders(renditions)
    for folder in folders:
        await store.end_uploads(folder)
    listed = await asyncio.gather(*(store.list(folder) for folder in folders))
    playlists = [f"{name}/{PLAYLIST_NAME}" for name in renditions]
    await store.delete([MASTER_NAME, *playlists])
    await store.delete([THUMBNAIL_NAME, *(stored.key for page in listed for stored in page)])


def may_have_published(result: Mapping[str, Any]) -> bool:
    """Whether a job with this stored result has begun to write objects."""
    return bool(result.get(PUBLISHING))
