"""An egress and its recording as rows, without a room or a worker."""

from __future__ import annotations

from datetime import datetime

from server.domain.egress import (
    Egress,
    EgressPlan,
    EgressSecrets,
    EgressStatus,
    Encoding,
    FileOutput,
    Orders,
    Outputs,
    StorageChoice,
    Surface,
    VideoEncoding,
)
from server.domain.egress_sources import RoomSource, RoomTracksSource
from server.domain.recording import Recording
from server.ids import ProjectId, new_egress_id, new_job_id, new_recording_id
from server.ports.unit_of_work import Database


async def add_egress(
    database: Database, project_id: ProjectId, now: datetime, *, running: bool, tracks: bool
) -> tuple[str, str]:
    """Their ids; `running` is ACTIVE, else COMPLETE with a file, or with `tracks`."""
    egress_id, recording_id = new_egress_id(), new_recording_id()
    key = f"recordings/{recording_id}.mp4"
    egress = Egress(
        id=egress_id,
        project_id=project_id,
        job_id=new_job_id(),
        room_name="a-room",
        room_id="RM_room",
        surface=Surface.BAXCLOUD,
        type="record",
        layout="grid",
        quality="720p",
        file_type="MP4",
        plan=EgressPlan(
            "a-room",
            RoomTracksSource() if tracks else RoomSource(),
            Encoding(VideoEncoding(), None),
            Outputs(files=(FileOutput("mp4", key),)),
        ),
        request={"type": "room_composite", "body": {"roomName": "a-room"}},
        created_at=now,
        started_at=1,
        updated_at=1,
        status=EgressStatus.ACTIVE if running else EgressStatus.COMPLETE,
        recording_id=recording_id,
        ended_at=0 if running else 2,
    )
    manifest = {"egressId": egress_id, "recordingId": recording_id, "objects": [], "durationMs": 1000}
    recording = Recording(
        id=recording_id,
        project_id=project_id,
        egress_id=egress_id,
        room_name="a-room",
        status="STARTED" if running else "COMPLETED",
        file_type="MP4",
        layout="grid",
        quality="720p",
        created_at=now,
        started_at=now,
        ended_at=None if running else now,
        key=None if running or tracks else key,
        manifest=None if running else manifest,
        tracks=tracks,
    )
    async with database.begin() as tx:
        # In the data directory, whatever the project's default becomes meanwhile.
        storages = (StorageChoice("project", {"prefix": ""}),)
        await tx.egresses.add(egress, Orders(), EgressSecrets(storages))
        await tx.recordings.add(recording)
        await tx.commit()
    return egress_id, recording_id
