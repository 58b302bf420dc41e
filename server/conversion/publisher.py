"""Publishes a ladder while it is being encoded: segments as they are done, playlists only after what they name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from server.domain.hls import (
    MASTER_NAME,
    PLAYLIST_NAME,
    PLAYLIST_TYPE,
    SEGMENT_TYPE,
    SUBTITLE_TYPE,
    Segment,
    master_playlist,
    measured_variant,
    media_playlist,
    planned_variant,
)
from server.domain.ladder import EncodePlan
from server.ports.encoder import EncodedSegment, EncodeReport, SubtitleTrack
from server.ports.storage import ObjectStore

PARALLEL_UPLOADS = 6


class LadderPublisher:
    """Uploads one ladder to `store`; an async context manager around the encode.

    `add` is the encoder's `on_segment`: it returns once the upload has a place, so a slow storage leaves finished
    segments waiting on disk, not in memory. A failed upload is raised by the next `add` or by `finish`. `on_playable` is
    awaited once, when the master playlist and a first segment of every rendition are in place.

    `listed` counts the segments that playlists of an earlier attempt name already, for a stream that is playable since
    then: an EVENT playlist may only grow (RFC 8216 4.3.3.5), so none is written before it is longer.
    """

    def __init__(
        self,
        store: ObjectStore,
        plan: EncodePlan,
        *,
        on_playable: Callable[[], Awaitable[None]],
        listed: Mapping[str, int] | None = None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._on_playable = on_playable
        self._slots = asyncio.Semaphore(PARALLEL_UPLOADS)
        self._uploads: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._uploaded: dict[str, dict[int, Segment]] = {rendition.name: {} for rendition in plan.renditions}
        self._listed: dict[str, int] = dict.fromkeys(self._uploaded, 0) | dict(listed or {})
        self._codecs: dict[str, tuple[str, ...]] = {}
        self._playable = listed is not None
        self._ended = False
        self._changed = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._publishing = asyncio.create_task(self._publish_while_encoding(), name="publish playlists")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._uploads, *([self._publishing] if self._publishing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def add(self, encoded: EncodedSegment) -> None:
        """Raise StorageError when an earlier upload has failed."""
        await self._slots.acquire()
        if self._failure:
            self._slots.release()
            raise self._failure
        task = asyncio.create_task(self._upload(encoded), name=f"upload {encoded.rendition}/{encoded.index}")
        self._uploads.add(task)
        task.add_done_callback(self._uploads.discard)

    async def finish(self, report: EncodeReport, subtitles: Sequence[SubtitleTrack]) -> None:
        """Waits for the uploads, then turns every playlist into VOD; the master comes last, with measured rates."""
        await asyncio.gather(*self._uploads)
        if self._publishing:
            # Not cancelled: a storage may still carry out a write that nobody waits for, and a growing playlist must
            # not arrive after the final one.
            self._ended = True
            self._changed.set()
            await self._publishing
        if self._failure:
            raise self._failure
        for rendition in report.renditions:
            await self._put_playlist(rendition.name, rendition.segments, ended=True)
        for track in subtitles:
            await self._put_subtitles(track)
        by_name = {rendition.name: rendition for rendition in report.renditions}
        variants = [
            measured_variant(
                self._plan, rendition, by_name[rendition.name].codecs, by_name[rendition.name].segments
            )
            for rendition in self._plan.renditions
        ]
        await self._put_text(MASTER_NAME, master_playlist(variants, [track.variant for track in subtitles]))

    async def _upload(self, encoded: EncodedSegment) -> None:
        key = f"{encoded.rendition}/{encoded.segment.name}"
        try:
            await self._store.put_file(key, encoded.path, content_type=SEGMENT_TYPE)
        except Exception as failure:  # noqa: BLE001 - kept for `add` and `finish`, which raise it to the caller
            self._failure = self._failure or failure
            return
        finally:
            self._slots.release()
        self._uploaded[encoded.rendition][encoded.index] = encoded.segment
        self._codecs[encoded.rendition] = encoded.codecs
        self._changed.set()

    async def _publish_while_encoding(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._ended and self._playable:
                    return
                await self._publish_new()
                if self._ended:
                    return
        except Exception as failure:  # noqa: BLE001 - kept for `add` and `finish`, which raise it to the caller
            self._failure = self._failure or failure

    async def _publish_new(self) -> None:
        for name in self._uploaded:
            segments = self._contiguous(name)
            if len(segments) > self._listed[name]:
                await self._put_playlist(name, segments, ended=False)
                self._listed[name] = len(segments)
        if not self._playable and all(self._listed.values()):
            variants = [
                planned_variant(self._plan, rendition, self._codecs[rendition.name])
                for rendition in self._plan.renditions
            ]
            await self._put_text(MASTER_NAME, master_playlist(variants))
            self._playable = True
            await self._on_playable()

    def _contiguous(self, name: str) -> list[Segment]:
        # Uploads end in any order; a playlist may only grow at its end.
        uploaded = self._uploaded[name]
        segments: list[Segment] = []
        while (segment := uploaded.get(len(segments))) is not None:
            segments.append(segment)
        return segments

    async def _put_playlist(self, folder: str, segments: Sequence[Segment], *, ended: bool) -> None:
        text = media_playlist(segments, target_duration=self._plan.target_duration, ended=ended)
        await self._put_text(f"{folder}/{PLAYLIST_NAME}", text)

    async def _put_subtitles(self, track: SubtitleTrack) -> None:
        folder = track.variant.folder
        for name, text in track.files:
            await self._store.put_bytes(f"{folder}/{name}", text, content_type=SUBTITLE_TYPE)
        await self._put_playlist(folder, track.segments, ended=True)

    async def _put_text(self, key: str, text: str) -> None:
        await self._store.put_bytes(key, text.encode(), content_type=PLAYLIST_TYPE)
