"""Egresses as LiveKit's requests make them, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.domain.egress import Egress, Surface
from server.egress.echo import echo_of
from server.egress.requests import Accepted, Capabilities, RequestReader, UrlChecks
from server.ids import JobId, ProjectId

AT = 1_777_863_721_987_654_000
LIVEKIT_ROOM = "livekit-name"


def accepted_of(kind: str, body: Mapping[str, Any]) -> Accepted:
    request = json_format.ParseDict(dict(body), getattr(pb, kind)())
    checks = UrlChecks(*[lambda url: None] * 3)
    return RequestReader(Capabilities(), checks).read(request, LIVEKIT_ROOM)


def egress_of(kind: str, body: Mapping[str, Any], **more: Any) -> Egress:
    """STARTING, unless `more` says otherwise."""
    request = json_format.ParseDict(dict(body), getattr(pb, kind)())
    accepted = accepted_of(kind, body)
    return Egress(
        **{
            "id": "EG_1",
            "project_id": ProjectId("cl_1"),
            "job_id": JobId("cm_1"),
            "room_name": accepted.room_name,
            "room_id": "RM_1",
            "surface": Surface.LIVEKIT,
            "type": accepted.type,
            "layout": accepted.layout,
            "quality": accepted.quality,
            "file_type": accepted.file_type,
            "plan": accepted.plan,
            "request": echo_of(request),
            "created_at": datetime(2026, 5, 4, tzinfo=UTC),
            "started_at": AT,
            "updated_at": AT,
            **more,
        }
    )
