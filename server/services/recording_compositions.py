"""Compositions of recordings of tracks, as jobs that make further recordings (design section 13)."""

from __future__ import annotations

from generated.baxcloud.v1 import egress_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.job import NewJob
from server.domain.recording import Recording
from server.egress.composing import COMPOSITION_ATTEMPTS, COMPOSITION_KIND, composition_job_id
from server.egress.compositions import DEFAULT_LAYOUT
from server.egress.qualities import DEFAULT_FILE_TYPE, DEFAULT_QUALITY
from server.egress.recording_files import RecordingFiles
from server.errors import failed_precondition
from server.ids import derived_id, new_recording_id
from server.ports.jobs import JobEngine
from server.ports.unit_of_work import Database
from server.services.egress_messages import recording_to_message


class RecordingCompositions:
    """The part of `baxcloud.v1.EgressService` that makes files of recorded tracks."""

    def __init__(self, database: Database, engine: JobEngine, files: RecordingFiles, clock: Clock) -> None:
        self._database = database
        self._engine = engine
        self._files = files
        self._clock = clock

    async def compose_recording(self, request: pb.ComposeRecordingRequest, ctx: CallContext) -> pb.Recording:
        """STARTED, at once. Raise ServiceError not_found, or failed_precondition for what holds no tracks (yet)."""
        source = await self._files.completed(ctx.project_id, request.recording_id)
        if not source.tracks:
            raise failed_precondition(
                "only recordings of tracks can be composed", reason="RECORDING_HAS_NO_TRACKS"
            )
        key = ctx.idempotency_key
        now = self._clock.now()
        recording = Recording(
            id=derived_id("rec", ctx.project_id, ctx.method, key) if key else new_recording_id(),
            project_id=ctx.project_id,
            egress_id=source.egress_id,
            room_name=source.room_name,
            status="STARTED",
            file_type=request.file_type.upper() or DEFAULT_FILE_TYPE,
            layout=request.layout or DEFAULT_LAYOUT,
            quality=request.quality or DEFAULT_QUALITY,
            created_at=now,
            started_at=now,
            composed_from=source.id,
        )
        async with self._database.begin() as tx:
            earlier = await tx.recordings.get(ctx.project_id, recording.id)
            if earlier is None:
                await tx.recordings.add(recording)
                await self._engine.submit(tx, _job(recording, source))
            await tx.commit()
        self._engine.nudge()
        return recording_to_message(earlier or recording)


def _job(recording: Recording, source: Recording) -> NewJob:
    return NewJob(
        id=composition_job_id(recording),
        project_id=recording.project_id,
        kind=COMPOSITION_KIND,
        spec={
            "recordingId": recording.id,
            "sourceId": source.id,
            "egressId": source.egress_id,
            "roomName": source.room_name,
            "layout": recording.layout,
            "quality": recording.quality,
            "fileType": recording.file_type,
        },
        max_attempts=COMPOSITION_ATTEMPTS,
    )
