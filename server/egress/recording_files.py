"""Finished recordings as files: which object it is, where it lies, and how to get at it."""

from __future__ import annotations

from pathlib import Path

from server.domain.recording import Recording
from server.egress.storage import EgressStorages, OpenStorage
from server.errors import failed_precondition, not_found
from server.ids import ProjectId
from server.ports.unit_of_work import Database

COMPLETED = "COMPLETED"


class RecordingFiles:
    """Implements `RecordingReader`."""

    def __init__(self, database: Database, storages: EgressStorages) -> None:
        self._database = database
        self._storages = storages

    async def completed(self, project_id: ProjectId, recording_id: str) -> Recording:
        """Raise ServiceError not_found, or failed_precondition `RECORDING_NOT_COMPLETED`."""
        async with self._database.read() as tx:
            recording = await tx.recordings.get(project_id, recording_id)
        if recording is None:
            raise not_found("recording", recording_id)
        if recording.status != COMPLETED:
            raise failed_precondition(
                f"the recording is {recording.status}, not {COMPLETED}", reason="RECORDING_NOT_COMPLETED"
            )
        return recording

    async def key(self, project_id: ProjectId, recording_id: str) -> str:
        """Of its file. Raise as `completed`, and `RECORDING_HAS_NO_FILE`."""
        return _key(await self.completed(project_id, recording_id))

    async def locate(self, project_id: ProjectId, recording_id: str) -> tuple[OpenStorage, str]:
        """Where its file is, and the key there. Raise as `key`, and StorageError."""
        recording = await self.completed(project_id, recording_id)
        key = _key(recording)
        async with self._database.read() as tx:
            egress = await tx.egresses.get(None, recording.egress_id)
        if egress is None:
            raise not_found("recording", recording_id)
        outputs = egress.plan.outputs
        output = (outputs.files or outputs.segments)[0]
        opened = await self._storages.open(egress, output.storage, backup=egress.results.backup_storage_used)
        return opened, key

    async def fetch(self, project_id: ProjectId, recording_id: str, target: Path) -> None:
        """Brings the file to local disk, as `RecordingReader` says."""
        opened, key = await self.locate(project_id, recording_id)
        await opened.store.get_file(key, target)


def _key(recording: Recording) -> str:
    if recording.key is None:
        what = "tracks, not a file; compose it first" if recording.tracks else "segments, not a file"
        raise failed_precondition(f"this recording holds {what}", reason="RECORDING_HAS_NO_FILE")
    return recording.key
