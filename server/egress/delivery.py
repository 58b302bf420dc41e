"""The delivery job: what a capture left on this host's disk becomes objects where they belong, however long it takes."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from server.clock import Clock
from server.domain.egress import Egress, Failing, FileOutput, FileResult, Results, Surface
from server.domain.egress_sources import RoomTracksSource
from server.domain.job import Job, JobStatus
from server.domain.recording import Recording
from server.domain.webhook import NewEvent
from server.egress import outcome as outcomes
from server.egress.books import Books
from server.egress.events import EgressWatcher
from server.egress.finishing import FinishedFile, finish_files, key_of
from server.egress.handler import fail_abandoned, outcome_of
from server.egress.journal import Journal
from server.egress.manifest import (
    ManifestObject,
    estimated_joins,
    livekit_manifest,
    livekit_manifest_key,
    manifest,
    manifest_key,
)
from server.egress.names import image_names, segment_names
from server.egress.outcome import Outcome, concluded, recording_after
from server.egress.segments import adopt_segments, until_written, untold
from server.egress.storage import EgressStorages, OpenStorage
from server.egress.uploads import Uploads, known_facts
from server.errors import Code, ServiceError
from server.ports.jobs import JobRun, JobStopped, OwnershipLost, RetryLater
from server.ports.recorder import Ended, Join, RecordingMuxer
from server.ports.storage import StorageError
from server.ports.unit_of_work import Database, UnitOfWork

_log = logging.getLogger(__name__)

DELIVERY_KIND = "egress_delivery"
HOST_FILE = "host-id"
# Key of the job's result: the files stay on disk, for nobody else has them.
KEPT = "kept"


def delivery_kind(folder: Path) -> str:
    """The kind of delivery jobs whose files lie in `folder`: hosts that share it share the jobs."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / HOST_FILE
    try:
        with path.open("x") as file:
            file.write(secrets.token_hex(6))
    except FileExistsError:
        pass
    return f"{DELIVERY_KIND}@{path.read_text().strip()}"


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Pauses after a failed attempt double from `first_pause_sec` up to `max_pause_sec`.

    After `backup_after` failed attempts, or at once for a fault that will not pass, the backup storage is used. What
    breaks for reasons of our own is tried `broken_attempts` times.
    """

    first_pause_sec: float = 2.0
    max_pause_sec: float = 300.0
    backup_after: int = 5
    broken_attempts: int = 5


@dataclass(frozen=True, slots=True)
class Shipping:
    """Everything that deliveries work with. `folder` is that of the captures; `versions` go into manifests."""

    database: Database
    storages: EgressStorages
    muxer: RecordingMuxer
    watchers: Sequence[EgressWatcher]
    clock: Clock
    folder: Path
    policy: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    versions: Mapping[str, str] = field(default_factory=dict)


class DeliveryHandler:
    """JobHandler of this host's deliveries; the spec is `{"egressId": …, "outcome": …}`."""

    def __init__(self, shipping: Shipping) -> None:
        self._shipping = shipping
        self.kind = delivery_kind(shipping.folder)

    async def run(self, run: JobRun) -> Mapping[str, Any]:
        """Raise RetryLater, JobStopped, OwnershipLost; a delivery that fails for good fails its egress, not its job."""
        work = asyncio.create_task(self._run(run), name=f"deliver {run.job.spec['egressId']}")
        stopped = asyncio.create_task(run.stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, stopped, return_exceptions=True)
        if work.cancelled():
            raise JobStopped
        return work.result()

    async def _run(self, run: JobRun) -> Mapping[str, Any]:
        egress_id = run.job.spec["egressId"]
        async with self._shipping.database.read() as tx:
            egress = await tx.egresses.get(None, egress_id)
        if egress is None:
            return {}
        if egress.status.is_final:
            # Its end was written by somebody who died before the job's. One that failed on the way has its files here.
            return {KEPT: True} if egress.failing != outcome_of(run.job).failing else {}
        books = Books(run, egress_id, self._shipping.watchers, self._shipping.clock)
        journal = await Journal.open(self._shipping.folder / egress_id)
        policy = self._shipping.policy
        backup = self._shipping.storages.has_backup and run.job.attempt > policy.backup_after
        delivery = _Delivery(self._shipping, run, egress, outcome_of(run.job), journal, books)
        try:
            return await delivery.deliver(backup=backup)
        except (StorageError, ServiceError, OSError) as error:
            return await self._after(error, delivery, run, backup=backup)
        except OwnershipLost:
            raise
        except Exception:
            if run.job.attempt < policy.broken_attempts:
                raise
            _log.exception("egress %s: its delivery broke again and again", egress_id)
            return await delivery.fail(outcomes.DELIVERY_BROKE)

    async def _after(
        self, error: StorageError | ServiceError | OSError, delivery: _Delivery, run: JobRun, *, backup: bool
    ) -> Mapping[str, Any]:
        """Tries again later, or somewhere else, or ends it: then the files stay where they are."""
        last = run.job.attempt >= run.job.max_attempts
        if not _is_lasting(error) and not last:
            pause = min(
                self._shipping.policy.first_pause_sec * 2.0 ** min(run.job.attempt - 1, 30),
                self._shipping.policy.max_pause_sec,
            )
            raise RetryLater("STORAGE_UPLOAD_FAILED", _text(error), delay_sec=pause) from error
        if backup or not self._shipping.storages.has_backup:
            return await delivery.fail(
                _upload_failed(f"{delivery.storage_name} upload failed: {_text(error)}")
            )
        try:
            return await delivery.deliver(backup=True)
        except (StorageError, ServiceError, OSError) as second:
            if not _is_lasting(second) and not last:
                raise RetryLater(
                    "STORAGE_UPLOAD_FAILED", _text(second), delay_sec=self._shipping.policy.max_pause_sec
                ) from second
            both = f"primary: {_text(error)}\nbackup: {_text(second)}"
            return await delivery.fail(_upload_failed(both))

    def started_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    async def on_completed(self, tx: UnitOfWork, job: Job) -> None:
        """Everything was written with the end of the egress itself."""

    def completed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    def failed_events(self, job: Job) -> Sequence[NewEvent]:
        return ()

    async def on_settled(self, job: Job) -> None:
        """Removes the local files, only now that the end of the egress is stored."""
        if job.status is JobStatus.FAILED:
            failing = replace(
                outcomes.DELIVERY_BROKE,
                message=_kept(outcomes.DELIVERY_BROKE.message, job.spec["egressId"]),
            )
            now = int(self._shipping.clock.now().timestamp() * 1e9)
            await fail_abandoned(self._shipping.database, self._shipping.watchers, job, failing, now)
        elif not job.result.get(KEPT):
            folder = self._shipping.folder / job.spec["egressId"]
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class _Delivery:
    """One attempt."""

    def __init__(
        self,
        shipping: Shipping,
        run: JobRun,
        egress: Egress,
        outcome: Outcome,
        journal: Journal,
        books: Books,
    ) -> None:
        self._shipping = shipping
        self._run = run
        self._egress = egress
        self._outcome = outcome
        self._journal = journal
        self._books = books
        self._objects: list[ManifestObject] = []
        self._keys: list[str] = []
        self._storages: dict[tuple[int, bool], OpenStorage] = {}
        self.storage_name = "Storage"

    async def deliver(self, *, backup: bool) -> Mapping[str, Any]:
        """Raise StorageError, ServiceError, OSError, OwnershipLost."""
        if not self._journal.footage.has_media:
            # Another host's disk has it, or nobody's.
            return await self._conclude(
                outcomes.failed(outcomes.FILES_GONE, self._outcome.ended_at), Results()
            )
        self._objects, self._keys = [], []
        outputs = self._egress.plan.outputs
        if outputs.segments:
            await self._adopt()
        try:
            files = (
                await finish_files(self._egress, self._journal, self._shipping.muxer) if outputs.files else []
            )
        except ValueError as error:
            _log.error("egress %s: its parts cannot be joined: %s", self._egress.id, error)
            return await self.fail(outcomes.NO_MEDIA)
        uploads = Uploads(self._shipping.storages, self._run, self._egress, self._journal, backup=backup)
        results = Results(
            files=await self._files(files, backup=backup),
            segments=await uploads.finish_segments(),
            images=await uploads.finish_images(),
            backup_storage_used=backup or any(one.backup for one in self._journal.footage.stored.values()),
        )
        self._objects += uploads.objects
        stored = self._manifest(files)
        location = await self._put_manifests(stored, backup=backup)
        results = replace(results, manifest_location=location)
        return await self._conclude(self._outcome, results, stored)

    async def _adopt(self) -> None:
        """What could not be entered into the journal while the disk was full: streams and recorders are gone now.

        Raise OSError when it still is; what cannot be read costs only itself.
        """
        for part in self._journal.footage.parts:
            if isinstance(part.end, Ended) and not untold(self._journal, part.number):
                continue
            try:
                if part.started_at and await until_written(self._journal.folder, part.number, 0):
                    await adopt_segments(self._journal, part.number)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                _log.error(
                    "egress %s: what part %d left is not used: %s", self._egress.id, part.number, error
                )

    async def fail(self, failing: Failing) -> Mapping[str, Any]:
        """For good: nothing is removed from the disk."""
        failing = replace(failing, message=_kept(failing.message, self._egress.id))
        _log.error("egress %s: %s", self._egress.id, failing.message)
        await self._conclude(outcomes.failed(failing, self._outcome.ended_at), Results())
        return {KEPT: True}

    async def _open(self, index: int, *, backup: bool) -> OpenStorage:
        if (index, backup) not in self._storages:
            opened = await self._shipping.storages.open(self._egress, index, backup=backup)
            self._storages[index, backup] = opened.fenced(self._run)
        self.storage_name = self._storages[index, backup].name
        return self._storages[index, backup]

    # --- files

    async def _files(self, files: Sequence[FinishedFile], *, backup: bool) -> tuple[FileResult, ...]:
        results: list[FileResult] = []
        for output in self._egress.plan.outputs.files:
            storage = await self._open(output.storage, backup=backup)
            for file in files:
                key = key_of(self._egress, output, self._journal, file)
                self._keys.append(key)
                results.append(await self._put_file(storage, file, key))
        return tuple(results)

    async def _put_file(self, storage: OpenStorage, file: FinishedFile, key: str) -> FileResult:
        size = (await asyncio.to_thread(file.path.stat)).st_size
        digest = await storage.put(key, file.path)
        location = storage.location(key)
        self._objects.append(ManifestObject(storage.full_key(key), size, digest, location))
        return file.result(storage.full_key(key), size, location)

    # --- manifests

    def _manifest(self, files: Sequence[FinishedFile]) -> dict[str, Any]:
        footage = self._journal.footage
        joined = next((file for file in files if file.joins), None)
        joins: Sequence[Join] = joined.joins if joined else estimated_joins(footage)
        duration = joined.duration_ms if joined else footage.duration_ms
        return manifest(self._egress, footage, self._objects, joins, duration, self._shipping.versions)

    async def _put_manifests(self, ours: Mapping[str, Any], *, backup: bool) -> str:
        """The location of the first; none is worth losing the rest for, so a fault that lasts is only told of."""
        locations = []
        for storage_index, key, wanted in self._manifest_places():
            if not (wanted or backup):
                continue
            try:
                locations.append(await self._put_manifest(storage_index, key, ours, backup=backup))
            except StorageError as error:
                if error.retryable and self._run.job.attempt < self._run.job.max_attempts:
                    raise
                _log.warning("egress %s: its manifest could not be stored: %s", self._egress.id, error)
        return locations[0] if locations else ""

    async def _put_manifest(self, index: int, key: str, ours: Mapping[str, Any], *, backup: bool) -> str:
        storage = await self._open(index, backup=backup)
        if self._egress.surface is Surface.LIVEKIT:
            key = livekit_manifest_key(key, self._egress.id)
            data = livekit_manifest(
                self._egress, self._journal.footage, self._objects, self._outcome.ended_at
            )
        else:
            key = manifest_key(key)
            data = json.dumps(ours, ensure_ascii=False, indent=2).encode() + b"\n"
        await storage.store.put_bytes(key, data, content_type="application/json")
        return storage.location(key)

    def _manifest_places(self) -> list[tuple[int, str, bool]]:
        """(storage, key of what it lies beside, whether it was asked for): LiveKit's in each folder, ours once."""
        outputs = self._egress.plan.outputs
        places = [(one.storage, self._file_key(one), one.manifest) for one in outputs.files]
        facts = known_facts(self._egress, self._journal)
        places += [
            (one.storage, segment_names(one, facts).playlist, one.manifest) for one in outputs.segments
        ]
        places += [(one.storage, image_names(one, facts).prefix, one.manifest) for one in outputs.images]
        if self._egress.surface is not Surface.LIVEKIT:
            return [(index, key, True) for index, key, _ in places[:1]]
        return list(
            {
                (index, livekit_manifest_key(key, "")): (index, key, wanted) for index, key, wanted in places
            }.values()
        )

    def _file_key(self, output: FileOutput) -> str:
        if isinstance(self._egress.plan.source, RoomTracksSource):
            return output.path.rstrip("/")
        return self._keys[0]

    # --- the end

    async def _conclude(
        self, outcome: Outcome, results: Results, stored: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        def conclude_recording(recording: Recording, egress: Egress) -> Recording:
            ended = replace(recording_after(recording, egress), manifest=stored)
            return replace(ended, key=self._keys[0]) if results.files and not recording.tracks else ended

        await self._books.finish(
            lambda egress: concluded(egress, outcome, results, self._books.now()), conclude_recording
        )
        return {}


def _is_lasting(error: StorageError | ServiceError | OSError) -> bool:
    """Whether another try would end the same way."""
    match error:
        case StorageError():
            return not error.retryable
        case ServiceError():
            return error.code is Code.INVALID_ARGUMENT
        case _:
            return isinstance(error, FileNotFoundError)


def _text(error: StorageError | ServiceError | OSError) -> str:
    match error:
        case StorageError():
            return str(error)
        case ServiceError():
            return error.message
        case _:
            return f"the server could not work on its disk: {error.strerror}"


def _upload_failed(message: str) -> Failing:
    return Failing("STORAGE_UPLOAD_FAILED", message, 400)


def _kept(message: str, egress_id: str) -> str:
    return f"{message} (what was recorded is kept on the server, in egress/{egress_id} of its data directory)"
