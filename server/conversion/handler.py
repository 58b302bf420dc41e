"""The conversion job: fetch, probe, plan, encode and publish, thumbnail, verify."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from server.clock import Clock
from server.conversion.fenced_store import FencedStore
from server.conversion.leftovers import remove_leftovers
from server.conversion.progress import (
    DOWNLOADING,
    PROBING,
    TRANSCODING,
    UPLOADING,
    VERIFYING,
    ProgressReporter,
)
from server.conversion.published import PublishedObjects
from server.conversion.publisher import LadderPublisher
from server.domain.conversion import ConversionSpec, price_cents, spec_of, whole_seconds
from server.domain.hls import MASTER_NAME, PLAYLIST_NAME, THUMBNAIL_NAME
from server.domain.job import CONVERSION_KIND, Job, JobStatus
from server.domain.ladder import ConversionSettings, EncodePlan, plan_encode
from server.domain.media import MediaError, MediaLimits, left_out
from server.domain.project import Plan, Usage
from server.domain.webhook import NewEvent
from server.errors import Code, ServiceError
from server.ports.encoder import Encoder, EncodeReport
from server.ports.fetch import DownloadError, SourceFetcher
from server.ports.jobs import JobFailed, JobRun, JobStopped, RetryLater
from server.ports.recordings import RecordingReader
from server.ports.spool import UploadSpool
from server.ports.storage import ObjectStorage, ObjectStore, StorageError
from server.ports.unit_of_work import Database, UnitOfWork
from server.webhooks.payloads import (
    CATEGORIZATION,
    MODERATION,
    conversion_completed,
    conversion_failed,
    conversion_started,
    inline_ai_failed,
)

_logger = logging.getLogger(__name__)

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM_BYTES = 1 << 20
_AI_UNAVAILABLE = ("AI_MODEL_UNAVAILABLE", "no vision model is installed on this server")


@dataclass(frozen=True, slots=True)
class Workshop:
    """Everything that a conversion works with. `folder` holds one sub-folder per job while it runs.

    After a passing fault the next attempt comes `retry_delay_sec` later, after a full disk `disk_full_delay_sec`.
    Nothing begins with less than `min_free_bytes` of disk.
    """

    database: Database
    storage: ObjectStorage
    fetcher: SourceFetcher
    spool: UploadSpool
    recordings: RecordingReader
    encoder: Encoder
    clock: Clock
    folder: Path
    limits: MediaLimits
    retry_delay_sec: float = 10.0
    disk_full_delay_sec: float = 60.0
    min_free_bytes: int = 0


class ConversionHandler:
    """JobHandler of kind `conversion`."""

    kind = CONVERSION_KIND

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        conversion = _Conversion(self._shop, run)
        work = asyncio.create_task(conversion.convert(), name=f"convert {run.job.id}")
        stopped = asyncio.create_task(run.stop.wait())
        writing = asyncio.create_task(conversion.progress.write_regularly())
        tasks = {work, stopped, writing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks - {work} if work.done() else tasks:
                task.cancel()
            # Waiting for the cancelled work is what makes sure that no FFmpeg outlives the attempt.
            await asyncio.gather(*tasks, return_exceptions=True)
            # Before anything is written down: on a full disk the database may need the room.
            await conversion.clear()
        if work.done() and not work.cancelled():
            return await conversion.settle(work)
        if not writing.cancelled() and (lost := writing.exception()):
            raise lost
        raise JobStopped

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        return (conversion_started(job, now=self._shop.clock.now()),)

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        delta = Usage(
            conversion_jobs=1,
            conversion_seconds=job.result["durationSec"],
            conversion_cents=job.result["costCents"],
        )
        await tx.projects.add_usage(job.project_id, delta)

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        now = self._shop.clock.now()
        return (conversion_completed(job, now=now), *self._inline_ai_events(job))

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        return (conversion_failed(job, now=self._shop.clock.now()),)

    async def on_settled(self, job: Job) -> None:
        """Removes the local files, only now that the final state is stored: until then another attempt may need them."""
        await asyncio.to_thread(shutil.rmtree, self._shop.folder / job.id, ignore_errors=True)
        await self._shop.spool.remove(job.id)
        if job.status is JobStatus.FAILED:
            # It may have failed because its workers died: no attempt was left to clean up after itself.
            await remove_leftovers(job, self._shop.database, self._shop.storage)

    def _inline_ai_events(self, job: Job) -> list[NewEvent]:
        code, message = _AI_UNAVAILABLE
        wanted = [
            name
            for name, flag in ((CATEGORIZATION, "categorize"), (MODERATION, "moderate"))
            if job.spec[flag]
        ]
        return [
            inline_ai_failed(job, name, code=code, message=message, now=self._shop.clock.now())
            for name in wanted
        ]


class _Conversion:
    """One attempt. The folder carries the epoch, so that a suspended worker that wakes up meets nobody's files."""

    def __init__(self, shop: Workshop, run: JobRun) -> None:
        self._shop = shop
        self._run = run
        self._job_folder = shop.folder / run.job.id
        self._folder = self._job_folder / str(run.job.epoch)
        self._published: PublishedObjects | None = None
        self._disk_was_full = False
        self.progress = ProgressReporter(run)

    async def convert(self) -> dict[str, Any]:
        await asyncio.to_thread(self._prepare)
        spec = spec_of(self._run.job, await self._run.secrets())
        store = FencedStore(await self._shop.storage.open(spec.target), self._run)
        source = await self._source(spec)
        self.progress.enter(PROBING)
        info = await self._shop.encoder.probe(source)
        settings = ConversionSettings(
            spec.output_formats, spec.ffmpeg_preset, Fraction(spec.hls_time).limit_denominator(1000)
        )
        plan = plan_encode(info, settings, self._shop.limits)
        published = self._published = PublishedObjects(store, spec.output_formats)
        await published.end_uploads()
        # Viewers may be watching since an earlier attempt.
        listed = await published.listed() if self._run.job.playable_at else None
        self.progress.enter(TRANSCODING)
        async with LadderPublisher(
            store, plan, on_playable=lambda: self._playable(store, spec), listed=listed
        ) as publisher:
            report = await self._shop.encoder.encode(
                plan, source, self._folder, on_progress=self.progress.encoded, on_segment=publisher.add
            )
            self.progress.enter(UPLOADING)
            subtitles = await self._shop.encoder.subtitles(plan, info, source)
            await publisher.finish(report, subtitles)
        has_thumbnail = await self._thumbnail(plan, source, store)
        self.progress.enter(VERIFYING)
        await published.verify(report, has_thumbnail=has_thumbnail)
        result = await self._result(spec, store, report, has_thumbnail=has_thumbnail)
        return result | {"warnings": list(left_out(info))}

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if shutil.disk_usage(self._folder).free < self._shop.min_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def clear(self) -> None:
        """Removes the attempt's own files; a source that was fetched whole stays for the next one."""
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        if self._folder.exists():
            self._disk_was_full = shutil.disk_usage(self._folder).free < _NO_ROOM_BYTES
            shutil.rmtree(self._folder, ignore_errors=True)

    async def settle(self, work: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
        """The result, or what the engine must know of the failure; partial objects of a final failure are removed."""
        try:
            return work.result()
        except (MediaError, DownloadError, StorageError, ServiceError, OSError) as error:
            outcome = self._outcome(error)
            last = self._run.job.attempt >= self._run.job.max_attempts
            if isinstance(outcome, JobFailed) or last:
                await self._remove_published()
            raise outcome from error

    def _outcome(self, error: Exception) -> JobFailed | RetryLater:
        """B-64's code and one sentence for each kind of fault; passing ones are tried again."""
        delay = self._shop.retry_delay_sec
        match error:
            case DownloadError():
                return JobFailed("DOWNLOAD_TIMEOUT" if error.timed_out else "DOWNLOAD_FAILED", error.message)
            case MediaError(retryable=True) if self._disk_was_full:
                # FFmpeg tells of it in many ways; cut segments are the first that is noticed.
                return RetryLater(
                    error.code, "the server's disk is full", delay_sec=self._shop.disk_full_delay_sec
                )
            case MediaError(retryable=True):
                return RetryLater(error.code, error.message, delay_sec=delay)
            case MediaError():
                return JobFailed(error.code, error.message)
            case StorageError(retryable=True):
                return RetryLater("UPLOAD_FAILED", str(error), delay_sec=delay)
            case StorageError():
                return JobFailed("UPLOAD_FAILED", str(error))
            case ServiceError(code=Code.UNAVAILABLE):
                return RetryLater("INTERNAL", error.message, delay_sec=delay)
            case ServiceError():
                # The endpoint was fine when the job was accepted: most likely a name server is away.
                return RetryLater("UPLOAD_FAILED", error.message, delay_sec=delay)
            case OSError() if error.errno in _NO_SPACE:
                return RetryLater(
                    "INTERNAL", "the server's disk is full", delay_sec=self._shop.disk_full_delay_sec
                )
            case _:
                return RetryLater("INTERNAL", "the server could not work on its disk", delay_sec=delay)

    async def _remove_published(self) -> None:
        try:
            if self._published:
                await self._published.remove()
        except StorageError as error:
            # Often the very storage that failed; the job's own cause must not be hidden by this one.
            _logger.warning("job %s: partial objects could not be removed: %s", self._run.job.id, error)

    async def _source(self, spec: ConversionSpec) -> Path:
        if spec.is_upload:
            return self._shop.spool.path(self._run.job.id)
        kept = self._job_folder / "source"
        if not await asyncio.to_thread(kept.exists):
            self.progress.enter(DOWNLOADING)
            fetched = await self._fetch(spec, self._folder / "input")
            # Only whole files get this name, so the next attempt may rely on it.
            await asyncio.to_thread(fetched.replace, kept)
        return kept

    async def _fetch(self, spec: ConversionSpec, target: Path) -> Path:
        if spec.recording_id is None:
            fetched = await self._shop.fetcher.fetch(
                spec.input_url, target, on_progress=self.progress.downloaded
            )
            return fetched.path
        try:
            await self._shop.recordings.fetch(self._run.job.project_id, spec.recording_id, target)
        except StorageError as error:
            if error.retryable:
                raise RetryLater(
                    "DOWNLOAD_FAILED", str(error), delay_sec=self._shop.retry_delay_sec
                ) from error
            raise DownloadError(str(error)) from error
        except ServiceError as error:
            if error.code is Code.UNAVAILABLE:
                raise
            # It was there when the job was accepted.
            raise DownloadError(error.message) from error
        return target

    async def _playable(self, store: ObjectStore, spec: ConversionSpec) -> None:
        await self._run.save(result=_addresses(store, spec), playable_at=self._shop.clock.now())

    async def _thumbnail(self, plan: EncodePlan, source: Path, store: ObjectStore) -> bool:
        target = self._folder / THUMBNAIL_NAME
        try:
            made = await self._shop.encoder.thumbnail(plan, source, self._folder, target)
        except MediaError as error:
            _logger.warning("no thumbnail for %s: %s", self._run.job.id, error.message)
            return False
        if made:
            await store.put_file(THUMBNAIL_NAME, target, content_type="image/jpeg")
        return made

    async def _result(
        self, spec: ConversionSpec, store: ObjectStore, report: EncodeReport, *, has_thumbnail: bool
    ) -> dict[str, Any]:
        duration = whole_seconds(report.duration_sec)
        async with self._shop.database.read() as tx:
            project = await tx.projects.get(self._run.job.project_id)
        rate = (project.plan if project else Plan()).cents_per_rendition_minute
        return {
            **_addresses(store, spec),
            **({"thumbnailUrl": store.url(THUMBNAIL_NAME)} if has_thumbnail else {}),
            "durationSec": duration,
            "segmentsCount": len(report.renditions[0].segments),
            "costCents": price_cents(duration, len(spec.output_formats), rate),
        }


def _addresses(store: ObjectStore, spec: ConversionSpec) -> dict[str, Any]:
    return {
        "outputUrl": store.url(MASTER_NAME),
        "renditionUrls": {name: store.url(f"{name}/{PLAYLIST_NAME}") for name in spec.output_formats},
    }
