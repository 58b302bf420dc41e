"""Recordings: started and ended like egresses, and kept when those are forgotten (RC)."""

from __future__ import annotations

from datetime import timedelta

from generated.baxcloud.v1 import egress_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.recording import Recording
from server.egress.compositions import DEFAULT_LAYOUT, Composition
from server.egress.qualities import DEFAULT_FILE_TYPE, DEFAULT_QUALITY
from server.egress.recording_files import RecordingFiles
from server.errors import Code, ServiceError, not_found, unavailable
from server.ids import ProjectId
from server.ports.storage import StorageError
from server.ports.unit_of_work import Database
from server.services.egress_messages import manifest_to_message, recording_to_message
from server.services.egresses import Egresses
from server.services.messages import page_of

DEFAULT_EXPIRY_SEC = 3600
_STARTED = "STARTED"
# More than one project can have running at a time.
_ALL = 10_000


class Recordings:
    """The part of `baxcloud.v1.EgressService` about recordings."""

    def __init__(
        self,
        database: Database,
        egresses: Egresses,
        files: RecordingFiles,
        clock: Clock,
    ) -> None:
        self._database = database
        self._egresses = egresses
        self._files = files
        self._clock = clock

    async def start_recording(self, request: pb.StartRecordingRequest, ctx: CallContext) -> pb.Recording:
        wanted = Composition(
            room_name=request.room_name,
            layout=request.layout or DEFAULT_LAYOUT,
            quality=request.quality or DEFAULT_QUALITY,
            file_type=request.file_type.upper() or DEFAULT_FILE_TYPE,
            tracks=request.tracks,
        )
        egress = await self._egresses.start(wanted, ctx)
        return recording_to_message(await self._of_egress(ctx.project_id, egress.id))

    async def stop_recording(self, request: pb.StopRecordingRequest, ctx: CallContext) -> pb.Recording:
        """By the id of its egress (RC-05)."""
        recording = await self._of_egress(ctx.project_id, request.egress_id)
        if recording.status == _STARTED:
            try:
                await self._egresses.stop(request.egress_id, ctx)
            except ServiceError as error:
                # Who deletes an egress ends it, so its recording is on its way.
                if error.code is not Code.NOT_FOUND:
                    raise
            recording = await self._of_egress(ctx.project_id, request.egress_id)
        return recording_to_message(recording)

    async def list_recordings(
        self, request: pb.ListRecordingsRequest, ctx: CallContext
    ) -> pb.ListRecordingsResponse:
        page, size = page_of(request)
        async with self._database.read() as tx:
            found = await tx.recordings.list(
                ctx.project_id,
                room_name=request.room_name or None,
                status=pb.Egress.Status.Name(request.status) if request.HasField("status") else None,
                page=page,
                size=size,
            )
        return pb.ListRecordingsResponse(
            items=map(recording_to_message, found.items), total=found.total, page=page, limit=size
        )

    async def list_active_recordings(
        self, request: pb.ListActiveRecordingsRequest, ctx: CallContext
    ) -> pb.ListActiveRecordingsResponse:
        async with self._database.read() as tx:
            found = await tx.recordings.list(
                ctx.project_id, room_name=request.room_name or None, status=_STARTED, size=_ALL
            )
        return pb.ListActiveRecordingsResponse(
            items=map(recording_to_message, found.items), total=found.total
        )

    async def get_recording(self, request: pb.GetRecordingRequest, ctx: CallContext) -> pb.Recording:
        return recording_to_message(await self._get(ctx.project_id, request.recording_id))

    async def get_recording_download_url(
        self, request: pb.GetRecordingDownloadUrlRequest, ctx: CallContext
    ) -> pb.RecordingDownloadUrl:
        """Raise ServiceError failed_precondition while there is no file (C.2 row 13), unavailable without its storage."""
        lasts = request.expires_in if request.HasField("expires_in") else DEFAULT_EXPIRY_SEC
        try:
            opened, key = await self._files.locate(ctx.project_id, request.recording_id)
            address = await opened.store.presign(key, lasts)
        except StorageError as error:
            raise unavailable(str(error)) from error
        message = pb.RecordingDownloadUrl(download_url=address, expires_in=lasts)
        message.expires_at.FromDatetime(self._clock.now() + timedelta(seconds=lasts))
        return message

    async def get_recording_manifest(
        self, request: pb.GetRecordingManifestRequest, ctx: CallContext
    ) -> pb.RecordingManifest:
        recording = await self._files.completed(ctx.project_id, request.recording_id)
        if recording.manifest is None:
            raise not_found("manifest of recording", request.recording_id)
        return manifest_to_message(recording)

    async def _get(self, project_id: ProjectId, recording_id: str) -> Recording:
        async with self._database.read() as tx:
            recording = await tx.recordings.get(project_id, recording_id)
        if recording is None:
            raise not_found("recording", recording_id)
        return recording

    async def _of_egress(self, project_id: ProjectId, egress_id: str) -> Recording:
        async with self._database.read() as tx:
            recording = await tx.recordings.of_egress(project_id, egress_id)
        if recording is None:
            raise not_found("recording of egress", egress_id)
        return recording
