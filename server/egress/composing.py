"""The composition job: a recording of tracks becomes one file, in any layout, quality and format, whenever it is asked for."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.clock import Clock
from server.domain.conversion import whole_seconds
from server.domain.egress import Egress
from server.domain.job import Job, JobStatus, Progress
from server.domain.objects import content_type
from server.domain.recording import Recording
from server.domain.webhook import NewEvent
from server.egress.qualities import FORMATS, encoding_of
from server.egress.storage import EgressStorages, OpenStorage
from server.errors import ServiceError
from server.ids import JobId, derived_job_id
from server.ports.jobs import JobFailed, JobRun, JobStopped, OwnershipLost, RetryLater
from server.ports.recorder import ComposerBroke, Finished, RoomComposer
from server.ports.storage import StorageError
from server.ports.unit_of_work import Database, UnitOfWork
from server.webhooks.envelopes import core_event

_log = logging.getLogger(__name__)

COMPOSITION_KIND = "composition"
COMPOSITION_ATTEMPTS = 20
_RETRY_SEC = 15.0
_FETCHING, _COMPOSING, _UPLOADING = "downloading", "composing", "uploading"
# What fetching, composing and uploading take of the whole.
_SHARES = {_FETCHING: (0.0, 10.0), _COMPOSING: (10.0, 95.0), _UPLOADING: (95.0, 100.0)}
_TELL_SEC = 1.0


@dataclass(frozen=True, slots=True)
class Cutter:
    """Everything that compositions work with. `folder` holds one folder per job while it runs."""

    database: Database
    storages: EgressStorages
    composer: RoomComposer
    clock: Clock
    folder: Path
    versions: Mapping[str, str]


class CompositionHandler:
    """JobHandler; its spec is `{"recordingId", "sourceId", "layout", "quality", "fileType"}`."""

    kind = COMPOSITION_KIND

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        work = asyncio.create_task(_Cut(self._cutter, run).make(), name=f"compose {run.job.id}")
        stopped = asyncio.create_task(run.stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
            # Not what lies beside it: another attempt on this host may own the job by now.
            await asyncio.to_thread(shutil.rmtree, _folder(self._cutter, run), ignore_errors=True)
        if work.cancelled():
            raise JobStopped
        try:
            return work.result()
        except (StorageError, ServiceError, OSError, ComposerBroke) as error:
            raise _outcome(error) from error

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        recording = await tx.recordings.get(None, job.spec["recordingId"])
        if recording is not None:
            await tx.recordings.save(_completed(recording, job.result, self._cutter.clock))

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        told = ("recordingId", "egressId", "roomName", "durationSec", "fileUrl", "fileSize")
        data = {"status": "COMPLETED", **{name: job.result[name] for name in told}}
        return (self._event("recording.completed", job, data),)

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        data = {
            "recordingId": job.spec["recordingId"],
            "egressId": job.spec["egressId"],
            "roomName": job.spec["roomName"],
            "status": "FAILED",
            "errorMessage": job.error_message,
            "errorCode": job.error_code,
        }
        return (self._event("recording.failed", job, data),)

    async def on_settled(self, job: Job) -> None:
        """Removes what attempts that died have left; the row of a composition that failed says so."""
        await asyncio.to_thread(shutil.rmtree, self._cutter.folder / job.id, ignore_errors=True)
        if job.status is JobStatus.FAILED:
            await _fail(self._cutter.database, job, self._cutter.clock)

    def _event(self, name: str, job: Job, data: Mapping[str, Any]) -> NewEvent:
        now = self._cutter.clock.now()
        return core_event(
            name, project_id=job.project_id, subject=job.spec["recordingId"], data=data, now=now
        )


class _Cut:
    """One attempt."""

    def __init__(self, cutter: Cutter, run: JobRun) -> None:
        self._cutter = cutter
        self._run = run
        self._spec = run.job.spec
        self._folder = _folder(cutter, run)
        self._progress = Progress(0.0, _FETCHING)

    async def make(self) -> Mapping[str, Any]:
        """Raise StorageError, ServiceError, OSError, ComposerBroke, JobFailed, OwnershipLost."""
        telling = asyncio.create_task(self._tell())
        try:
            return await self._make()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _make(self) -> Mapping[str, Any]:
        source, egress = await self._source()
        storage = await self._cutter.storages.open(
            egress, egress.plan.outputs.files[0].storage, backup=egress.results.backup_storage_used
        )
        tracks = self._folder / "tracks"
        await self._fetch(source, storage, tracks)
        form = FORMATS[self._spec["fileType"]]
        target = self._folder / f"composed.{form.container}"
        self._enter(_COMPOSING)
        try:
            finished = await self._cutter.composer.compose(
                tracks,
                target,
                layout=self._spec["layout"],
                encoding=encoding_of(self._spec["quality"], self._spec["fileType"]),
                container=form.container,
                on_progress=lambda share: self._enter(_COMPOSING, share),
            )
        except ValueError as error:
            raise JobFailed("EGRESS_FAILED", "the recording holds no media") from error
        self._enter(_UPLOADING)
        return await self._publish(egress, storage, target, finished)

    async def _source(self) -> tuple[Recording, Egress]:
        async with self._cutter.database.read() as tx:
            source = await tx.recordings.get(None, self._spec["sourceId"])
            egress = await tx.egresses.get(None, source.egress_id) if source else None
        if source is None or egress is None or source.manifest is None:
            raise JobFailed("EGRESS_FAILED", "the recording's tracks are gone")
        return source, egress

    async def _fetch(self, source: Recording, storage: OpenStorage, folder: Path) -> None:
        assert source.manifest is not None
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        keys = [one["key"] for one in source.manifest["objects"]]
        for done, key in enumerate(keys):
            self._enter(_FETCHING, done / len(keys))
            await storage.store.get_file(key.removeprefix(storage.target.prefix), folder / Path(key).name)

    async def _publish(
        self, egress: Egress, storage: OpenStorage, target: Path, finished: Finished
    ) -> Mapping[str, Any]:
        recording_id = self._spec["recordingId"]
        key = f"recordings/{recording_id}{target.suffix}"
        size = (await asyncio.to_thread(target.stat)).st_size
        digest = await storage.fenced(self._run).put(key, target)
        url = storage.location(key)
        video = encoding_of(self._spec["quality"], self._spec["fileType"]).video
        fps = video.fps if video is not None else 0
        manifest = {
            "egressId": egress.id,
            "recordingId": recording_id,
            "objects": [
                {
                    "key": storage.full_key(key),
                    "size": size,
                    "sha256": digest,
                    "contentType": content_type(key),
                }
            ],
            "durationMs": finished.duration_ms,
            "framesComposed": round(finished.duration_ms * fps / 1000),
            "framesRepeated": 0,
            "framesDropped": 0,
            "audioOffsetMs": 0.0,
            "gaps": [],
            "tracks": [],
            "versions": dict(self._cutter.versions),
        }
        return {
            "recordingId": recording_id,
            "egressId": egress.id,
            "roomName": egress.room_name,
            "durationSec": whole_seconds(finished.duration_ms / 1000),
            "fileUrl": url,
            "fileSize": size,
            "key": key,
            "manifest": manifest,
        }

    def _enter(self, stage: str, share: float = 0.0) -> None:
        begin, end = _SHARES[stage]
        self._progress = Progress(round(begin + (end - begin) * share, 1), stage)

    async def _tell(self) -> None:
        while True:
            try:
                await self._run.save(progress=self._progress)
            except OwnershipLost:
                return
            await asyncio.sleep(_TELL_SEC)


class CompositionSweep:
    """Finds compositions whose worker died between the failure of their job and that of their row."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def run(self) -> int:
        """How many were ended."""
        async with self._database.read() as tx:
            jobs = [
                await tx.jobs.get(one.project_id, composition_job_id(one))
                for one in await tx.recordings.composing()
            ]
        failed = [job for job in jobs if job is not None and job.status is JobStatus.FAILED]
        for job in failed:
            await _fail(self._database, job, self._clock)
        return len(failed)


def composition_job_id(recording: Recording) -> JobId:
    return derived_job_id(recording.project_id, COMPOSITION_KIND, recording.id)


async def _fail(database: Database, job: Job, clock: Clock) -> None:
    async with database.begin() as tx:
        recording = await tx.recordings.get(None, job.spec["recordingId"])
        if recording is not None:
            failed = replace(
                recording,
                status="FAILED",
                ended_at=clock.now(),
                error_code=job.error_code,
                error_message=job.error_message,
            )
            await tx.recordings.save(failed)
            await tx.commit()


def _folder(cutter: Cutter, run: JobRun) -> Path:
    return cutter.folder / run.job.id / str(run.job.epoch)


def _completed(recording: Recording, result: Mapping[str, Any], clock: Clock) -> Recording:
    return replace(
        recording,
        status="COMPLETED",
        ended_at=clock.now(),
        key=result["key"],
        file_url=result["fileUrl"],
        file_size=result["fileSize"],
        duration_sec=result["durationSec"],
        manifest=result["manifest"],
    )


def _outcome(error: Exception) -> JobFailed | RetryLater:
    match error:
        case StorageError(retryable=False):
            return JobFailed("STORAGE_UPLOAD_FAILED", str(error))
        case StorageError():
            return RetryLater("STORAGE_UPLOAD_FAILED", str(error), delay_sec=_RETRY_SEC)
        case ServiceError():
            return RetryLater("INTERNAL", error.message, delay_sec=_RETRY_SEC)
        case ComposerBroke():
            return RetryLater("EGRESS_FAILED", str(error), delay_sec=_RETRY_SEC)
        case _:
            return RetryLater("INTERNAL", "the server could not work on its disk", delay_sec=_RETRY_SEC)
