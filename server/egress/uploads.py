"""What of an egress goes up while it runs: segments and images."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from server.domain.egress import Egress, ImagesResult, Outputs, SegmentsResult
from server.egress.books import Books
from server.egress.images import IMAGE, ImageUploads
from server.egress.journal import Journal
from server.egress.manifest import ManifestObject
from server.egress.names import Facts, facts_of, image_names, segment_names
from server.egress.segments import SEGMENT, SegmentUploads, untold
from server.egress.storage import EgressStorages, OpenStorage
from server.errors import ServiceError
from server.ports.jobs import JobRun, OwnershipLost
from server.ports.storage import StorageError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SEC = 1.0
_MAX_PAUSE_SEC = 30.0

# How often the row tells how many segments are in place; the first one, and with it the address, at once.
_TELL_SEC = 10.0

_Open = Callable[[int], Awaitable[SegmentUploads | ImageUploads]]


def known_facts(egress: Egress, journal: Journal) -> Facts:
    """What names are filled with: what was known when it was accepted, and what its first recorder found."""
    joined = journal.footage.facts
    if joined is None:
        return facts_of(egress)
    return facts_of(
        egress,
        publisher_identity=joined.publisher_identity,
        track_kind=joined.track_kind,
        track_source=joined.track_source,
    )


def has_undelivered(journal: Journal, outputs: Outputs) -> bool:
    """Whether its folder may hold what no storage has: parts of a file, segments and images; a segment also when nobody
    had told of it yet. Reads the folder.
    """
    footage = journal.footage
    segments = (
        (SEGMENT, output, segment.number) not in footage.stored
        for segment in footage.segments
        for output in range(len(outputs.segments))
    )
    images = ((IMAGE, image.output, image.number) not in footage.stored for image in footage.images)
    return bool(
        (footage.has_media and outputs.files)
        or any(segments)
        or any(images)
        or (outputs.segments and untold(journal))
    )


class Uploads:
    """All segment and image outputs of one egress, each with its own storage and pace."""

    def __init__(
        self,
        storages: EgressStorages,
        run: JobRun,
        egress: Egress,
        journal: Journal,
        *,
        books: Books | None = None,
        backup: bool = False,
    ) -> None:
        """`books` learn how far segments are while the egress runs."""
        self._books = books
        self._storages = storages
        self._run = run
        self._egress = egress
        self._journal = journal
        self._backup = backup
        self._stirred: list[asyncio.Event] = []
        self.objects: list[ManifestObject] = []

    def stir(self) -> None:
        """There is something new to upload."""
        for stirred in self._stirred:
            stirred.set()

    async def keep_up(self) -> None:
        """Until cancelled: a storage that fails is tried again, each output on its own."""
        outputs = self._egress.plan.outputs
        await asyncio.gather(
            *(self._keep_up(self._segments, index) for index in range(len(outputs.segments))),
            *(self._keep_up(self._images, index) for index in range(len(outputs.images))),
        )

    async def finish_segments(self) -> tuple[SegmentsResult, ...]:
        """Raise StorageError, ServiceError, OwnershipLost."""
        results = []
        for index in range(len(self._egress.plan.outputs.segments)):
            uploads = await self._segments(index)
            results.append(await uploads.finish())
            self.objects += uploads.objects()
        return tuple(results)

    async def finish_images(self) -> tuple[ImagesResult, ...]:
        """Raise StorageError, ServiceError, OwnershipLost."""
        results = []
        for index in range(len(self._egress.plan.outputs.images)):
            uploads = await self._images(index)
            results.append(await uploads.finish())
            self.objects += uploads.objects()
        return tuple(results)

    async def _keep_up(self, opened: _Open, index: int) -> None:
        stirred = asyncio.Event()
        self._stirred.append(stirred)
        uploads: SegmentUploads | ImageUploads | None = None
        pause = _FIRST_PAUSE_SEC
        told_at = -_TELL_SEC
        stirred.set()
        while True:
            await stirred.wait()
            stirred.clear()
            if not (self._journal.footage.segments or self._journal.footage.images):
                # Names need what the recorder finds out on joining.
                continue
            try:
                uploads = uploads or await opened(index)
                await uploads.catch_up()
                pause = _FIRST_PAUSE_SEC
                if isinstance(uploads, SegmentUploads) and time.monotonic() >= told_at + _TELL_SEC:
                    told_at = time.monotonic()
                    await self._tell(index, uploads.result())
            except (StorageError, ServiceError, OSError) as error:
                _log.warning("egress %s: an upload failed, it is tried again: %s", self._egress.id, error)
            except OwnershipLost:
                raise
            except Exception:  # noqa: BLE001 - see below
                # The delivery has another go at it, and tells if it fails there too.
                _log.exception("egress %s: an upload broke", self._egress.id)
            else:
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_SEC)
            stirred.set()

    async def _tell(self, index: int, result: SegmentsResult) -> None:
        def told(egress: Egress) -> Egress:
            others = egress.results.segments
            segments = (*others[:index], result, *others[index + 1 :])
            return replace(egress, results=replace(egress.results, segments=segments))

        if self._books is not None and result.segment_count:
            await self._books.change(told)

    async def _segments(self, index: int) -> SegmentUploads:
        output = self._egress.plan.outputs.segments[index]
        names = segment_names(output, known_facts(self._egress, self._journal))
        storage = await self._storage(output.storage)
        keep = self._storages.has_backup
        return SegmentUploads(self._egress, index, names, storage, self._journal, keep=keep)

    async def _images(self, index: int) -> ImageUploads:
        output = self._egress.plan.outputs.images[index]
        names = image_names(output, known_facts(self._egress, self._journal))
        storage = await self._storage(output.storage)
        return ImageUploads(index, names, storage, self._journal, keep=self._storages.has_backup)

    async def _storage(self, index: int) -> OpenStorage:
        opened = await self._storages.open(self._egress, index, backup=self._backup)
        return opened.fenced(self._run)
