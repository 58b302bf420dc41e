"""Egresses, recordings and rules as their protobuf messages; nothing here shows a stream key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from generated.baxcloud.v1 import egress_pb2 as pb
from server.domain.egress import Egress, shown_status
from server.domain.egress_sources import RoomTracksSource
from server.domain.recording import AutoEgress, Recording
from server.egress.outcome import kept_of
from server.egress.stream_urls import shown
from server.services.messages import to_timestamp


def egress_to_message(egress: Egress, measured: Mapping[str, Any] | None = None) -> pb.Egress:
    """What every transport shows of an egress (C.1); `measured` as `server.egress.books.measured_by` gives it."""
    message = pb.Egress(
        id=egress.id,
        egress_id=egress.id,
        recording_id=egress.recording_id,
        room_name=egress.room_name,
        type=egress.type,
        mode=egress.type,
        layout=egress.layout,
        quality=egress.quality,
        status=shown_status(egress),
        livekit_status=egress.status.value,
        destinations=[one.shown_url for one in egress.results.streams],
        file=pb.FileOptions(file_type=egress.file_type) if egress.file_type else None,
        created_at=to_timestamp(egress.created_at),
        started_at=from_ns(egress.started_at),
        ended_at=from_ns(egress.ended_at),
        paused=bool(egress.paused),
        tracks=isinstance(egress.plan.source, RoomTracksSource),
        **_file_of(egress),
    )
    if measured:
        message.progress.CopyFrom(
            pb.EgressProgress(
                duration_ms=round(measured["durationMs"]),
                fps=measured["fps"],
                frames_composed=measured["framesComposed"],
                frames_repeated=measured["framesRepeated"],
                frames_dropped=measured["framesDropped"],
                bytes=measured["bytes"],
            )
        )
    if egress.failing is not None:
        message.error_code = egress.failing.code
        message.error_message = egress.failing.message
    return message


def _file_of(egress: Egress) -> dict[str, Any]:
    kept = kept_of(egress) if egress.status.is_final else None
    if kept is None:
        return {}
    return {"file_url": kept.url, "file_size": kept.size, "duration_sec": kept.duration_sec}


def recording_to_message(recording: Recording) -> pb.Recording:
    """C.1."""
    return pb.Recording(
        id=recording.id,
        egress_id=recording.egress_id,
        room_name=recording.room_name,
        status=recording.status,
        file_type=recording.file_type,
        layout=recording.layout,
        quality=recording.quality,
        file_url=recording.file_url,
        file_size=recording.file_size,
        duration_sec=recording.duration_sec,
        error_code=recording.error_code,
        error_message=recording.error_message,
        created_at=to_timestamp(recording.created_at),
        started_at=to_timestamp(recording.started_at),
        ended_at=to_timestamp(recording.ended_at),
        tracks=recording.tracks,
    )


def manifest_to_message(recording: Recording) -> pb.RecordingManifest:
    """Of a recording that has one."""
    return ParseDict(dict(recording.manifest or {}), pb.RecordingManifest(), ignore_unknown_fields=True)


def rules_to_message(rules: AutoEgress) -> pb.AutoEgressConfig:
    """Destinations are shown without their keys."""
    return pb.AutoEgressConfig(
        enabled=rules.enabled,
        mode=rules.mode,
        layout=rules.layout,
        quality=rules.quality,
        file=pb.FileOptions(file_type=rules.file_type) if rules.mode != "stream" else None,
        stream=pb.StreamOptions(urls=map(shown, rules.urls)) if rules.urls else None,
        min_participants=rules.min_participants,
        delay_seconds=rules.delay_seconds,
        room_name_pattern=rules.room_name_pattern,
        updated_at=to_timestamp(rules.updated_at),
    )


def from_ns(moment: int) -> Timestamp | None:
    """None for 0, which is unknown."""
    return to_timestamp(datetime.fromtimestamp(moment / 1e9, UTC)) if moment else None
