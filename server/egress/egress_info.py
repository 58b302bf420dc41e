"""An egress as LiveKit shows it: `EgressInfo` in proto3 JSON (livekit-surface.md 2)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from server.domain.egress import Egress, EgressPlan, EgressStatus, StreamResult, StreamStatus
from server.domain.egress_sources import RoomSource, WebSource

Json = dict[str, Any]
_ROOM_COMPOSITE = "room_composite"
_DEFAULT_LAYOUT = "grid"


def egress_info(egress: Egress) -> Json:
    """camelCase, unset fields left out, 64-bit integers as texts: what webhooks carry and `json_format` reads."""
    results = egress.results
    streams = [_stream(one) for one in results.streams]
    files = [_plain(one) for one in results.files]
    segments = [_plain(one) for one in results.segments]
    images = [_plain(one) for one in results.images]
    info = _set(
        egressId=egress.id,
        roomId=egress.room_id,
        roomName=egress.room_name,
        sourceType="EGRESS_SOURCE_TYPE_SDK" if _by_sdk(egress.plan) else "",
        status=egress.status.value if egress.status is not EgressStatus.STARTING else "",
        startedAt=egress.started_at,
        endedAt=egress.ended_at,
        updatedAt=egress.updated_at,
        details=egress.details,
        error=egress.failing.message if egress.failing else "",
        manifestLocation=results.manifest_location,
        backupStorageUsed=results.backup_storage_used,
        streamResults=streams,
        fileResults=files,
        segmentResults=segments,
        imageResults=images,
    )
    if egress.failing and egress.failing.http_code:
        info["errorCode"] = egress.failing.http_code
    kind, body = shown_request(egress)
    info[_camel(kind)] = body
    return info | _single_result(egress.plan, streams, files, segments)


def shown_request(egress: Egress) -> tuple[str, Json]:
    """The field of `EgressInfo` and the request in it, with the layout of now (LK-50)."""
    kind, body = egress.request["type"], dict(egress.request["body"])
    source = egress.plan.source
    if isinstance(source, RoomSource) and egress.layout != source.layout:
        if kind == _ROOM_COMPOSITE:
            body["layout"] = egress.layout
        elif "template" in body:
            body["template"] = {**body["template"], "layout": egress.layout}
    return kind, body


def _single_result(plan: EgressPlan, streams: list[Json], files: list[Json], segments: list[Json]) -> Json:
    """Older clients read the result of the only kind of output there is; images never counted."""
    outputs = plan.outputs
    kinds = [bool(outputs.streams), bool(outputs.files), bool(outputs.segments)]
    if sum(kinds) != 1 or outputs.images:
        return {}
    if outputs.streams:
        return {"stream": {"info": streams}}
    if files:
        return {"file": files[0]}
    return {"segments": segments[0]} if segments else {}


def _by_sdk(plan: EgressPlan) -> bool:
    """As LiveKit tells it: pages and room compositions with a picture count as recorded by a browser."""
    source = plan.source
    if isinstance(source, WebSource):
        return False
    if isinstance(source, RoomSource):
        return source.audio_only and not source.base_url and source.layout == _DEFAULT_LAYOUT
    return True


def _stream(result: StreamResult) -> Json:
    ran = result.ended_at - result.started_at if result.started_at and result.ended_at else 0
    shown = _set(
        id=result.id,
        url=result.url,
        status=result.status.value if result.status is not StreamStatus.ACTIVE else "",
        startedAt=result.started_at,
        endedAt=result.ended_at,
        duration=max(ran, 0),
        error=result.error,
        lastRetryAt=result.last_retry_at,
    )
    return shown | ({"retries": result.retries} if result.retries else {})


def _plain(result: Any) -> Json:
    """A result whose fields have LiveKit's names."""
    return _set(**{_camel(field.name): getattr(result, field.name) for field in fields(result)})


def _set(**values: Any) -> Json:
    """Without what is unset; numbers are of 64 bits here."""
    return {
        name: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in values.items()
        if value
    }


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
