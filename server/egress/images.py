"""Images of an egress, uploaded while it runs."""

from __future__ import annotations

import logging

from server.domain.egress import ImagesResult
from server.egress.journal import Image, Journal, Stored
from server.egress.manifest import ManifestObject
from server.egress.names import ImageNames
from server.egress.storage import OpenStorage

_log = logging.getLogger(__name__)

IMAGE = "image"


class ImageUploads:
    """One output of images; the journal knows how far it is. With `keep` they stay on disk, as segments do."""

    def __init__(
        self, index: int, names: ImageNames, storage: OpenStorage, journal: Journal, *, keep: bool = False
    ) -> None:
        self._keep = keep
        self._index = index
        self._names = names
        self._storage = storage
        self._journal = journal

    async def catch_up(self) -> None:
        """Uploads what is there, in order. Raise StorageError, OwnershipLost; what is done stays done."""
        backup = self._storage.is_backup
        for image in self._taken():
            if not self._journal.is_stored(IMAGE, self._index, image.number, image.file, backup=backup):
                await self._upload(image)

    async def finish(self) -> ImagesResult:
        """The rest. Raise StorageError, OwnershipLost."""
        await self.catch_up()
        stored = self._journal.footage.stored
        taken = [image for image in self._taken() if stored[IMAGE, self._index, image.number].key]
        return ImagesResult(
            filename_prefix=self._storage.full_key(self._names.prefix),
            image_count=len(taken),
            started_at=taken[0].taken_at if taken else 0,
            ended_at=taken[-1].taken_at if taken else 0,
        )

    def objects(self) -> list[ManifestObject]:
        """What is in place, for the manifest; of a picture that is always overwritten the last one."""
        stored = self._journal.footage.stored
        rows = {}
        for image in self._taken():
            done = stored[IMAGE, self._index, image.number]
            if not done.key:
                continue
            rows[done.key] = ManifestObject(
                key=self._storage.full_key(done.key),
                size=done.size,
                sha256=done.sha256,
                location=self._storage.location(done.key),
                kind="image",
                at=image.taken_at,
            )
        return list(rows.values())

    def _taken(self) -> list[Image]:
        return [image for image in self._journal.footage.images if image.output == self._index]

    async def _upload(self, image: Image) -> None:
        path = self._journal.folder / image.file
        if not path.exists():
            _log.error("%s is gone", path)
            await self._journal.add(Stored(IMAGE, self._index, image.number, key="", size=0, sha256=""))
            return
        key = self._names.image(image.number, image.taken_at)
        size = path.stat().st_size
        digest = await self._storage.put(key, path)
        await self._journal.add(
            Stored(IMAGE, self._index, image.number, key, size, digest, self._storage.is_backup)
        )
        if not self._keep:
            path.unlink(missing_ok=True)
