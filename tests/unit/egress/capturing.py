"""An egress and its journal as a capture makes them, for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from server.domain.egress import (
    Egress,
    EgressPlan,
    Encoding,
    FileOutput,
    Outputs,
    StreamResult,
    StreamStatus,
    Surface,
)
from server.domain.egress_sources import RoomSource
from server.domain.recording import Recording
from server.egress.journal import Footage, PartBegun, Reported
from server.ids import JobId, ProjectId
from server.ports.recorder import Active, Measured

SECOND = 1_000_000_000
BEGAN = 1_800_000_000 * SECOND
NOW = datetime(2027, 1, 15, 8, 0, 30, tzinfo=UTC)


def egress_of(**more: Any) -> Egress:
    """A recording that has just been accepted, unless `more` says otherwise."""
    plan = EgressPlan(
        "livekit-name",
        RoomSource(),
        Encoding(None, None),
        Outputs(files=(FileOutput("mp4", "recordings/rec_1.mp4"),)),
    )
    return Egress(
        **{
            "id": "EG_1",
            "project_id": ProjectId("cl_1"),
            "job_id": JobId("cm_1"),
            "room_name": "my-live-room",
            "room_id": "RM_1",
            "surface": Surface.BAXCLOUD,
            "type": "record",
            "layout": "speaker",
            "quality": "720p",
            "file_type": "MP4",
            "plan": plan,
            "request": {"type": "room_composite", "body": {}},
            "created_at": datetime(2027, 1, 15, 8, tzinfo=UTC),
            "started_at": BEGAN,
            "updated_at": BEGAN,
            "recording_id": "rec_1",
            **more,
        }
    )


def stream_of(id_: str, status: StreamStatus = StreamStatus.ACTIVE, **more: Any) -> StreamResult:
    return StreamResult(
        id_, f"rtmp://host/app/{{{id_}...{id_}}}", f"rtmp://{id_}.example.com/app/***", status, **more
    )


def recording_of(**more: Any) -> Recording:
    return Recording(
        **{
            "id": "rec_1",
            "project_id": ProjectId("cl_1"),
            "egress_id": "EG_1",
            "room_name": "my-live-room",
            "status": "STARTED",
            "file_type": "MP4",
            "layout": "speaker",
            "quality": "720p",
            "created_at": NOW,
            "started_at": NOW,
            **more,
        }
    )


def footage_of(*parts: tuple[float, Measured, str]) -> Footage:
    """(seconds after the beginning, what was measured, why there was a part) of each part."""
    footage = Footage()
    for number, (seconds, measured, reason) in enumerate(parts):
        footage.apply(PartBegun(number, reason, BEGAN))
        footage.apply(Reported(number, Active(BEGAN + round(seconds * SECOND))))
        footage.apply(Reported(number, measured))
    return footage
