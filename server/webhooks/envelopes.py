"""The three envelopes in which events travel, made once as the exact bytes of every attempt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.clock import iso_millis, iso_seconds
from server.domain.webhook import NewEvent
from server.ids import ProjectId, new_event_id

BAXSTREAM = "baxstream"
CORE = "core"
RTCSTACK = "rtcstack"
LIVEKIT = "livekit"


def encode(value: Mapping[str, Any]) -> bytes:
    """Compact UTF-8 JSON; raise ValueError for NaN and infinities, which JSON cannot carry."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def baxstream_event(
    name: str, *, project_id: ProjectId, subject: str, data: Mapping[str, Any], metadata: Any, now: datetime
) -> NewEvent:
    """Exactly the six keys of WB-15; `timestamp` has milliseconds (B-15), `metadata` is null when absent (B-88)."""
    event_id = new_event_id()
    body = {
        "event": name,
        "eventId": event_id,
        "timestamp": iso_millis(now),
        "projectId": project_id,
        "metadata": metadata,
        "data": data,
    }
    return NewEvent(event_id, project_id, name, subject, BAXSTREAM, encode(body), now)


def core_event(
    name: str, *, project_id: ProjectId, subject: str, data: Mapping[str, Any], now: datetime
) -> NewEvent:
    """`event`, `timestamp` in seconds and `data` (WH-21), then our additive `eventId` and `projectId` (B-14)."""
    event_id = new_event_id()
    body = {
        "event": name,
        "timestamp": iso_seconds(now),
        "data": data,
        "eventId": event_id,
        "projectId": project_id,
    }
    return NewEvent(event_id, project_id, name, subject, CORE, encode(body), now)


def rtcstack_event(
    name: str, *, project_id: ProjectId, subject: str, fields: Mapping[str, Any], now: datetime
) -> NewEvent:
    """A flat object: `event` and the fields beside it (RT-23, B-67); the id travels in a header."""
    return NewEvent(
        new_event_id(), project_id, name, subject, RTCSTACK, encode({"event": name, **fields}), now
    )
