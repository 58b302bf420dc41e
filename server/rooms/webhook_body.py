"""LiveKit's webhook bodies as news of rooms (livekit-surface.md section 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from server.domain.room import Participant, ParticipantKind, ParticipantState, Room, Track
from server.errors import Code, ServiceError
from server.rooms.news import News, NewsKind

# participant_connection_aborted is left out: whoever it is about was never there.
_KINDS: Mapping[str, NewsKind] = {
    "room_started": NewsKind.ROOM_STARTED,
    "room_finished": NewsKind.ROOM_FINISHED,
    "participant_joined": NewsKind.JOINED,
    "participant_left": NewsKind.LEFT,
    "track_published": NewsKind.PUBLISHED,
    "track_unpublished": NewsKind.UNPUBLISHED,
}
_VISITS = (NewsKind.JOINED, NewsKind.LEFT)
_PUBLICATIONS = (NewsKind.PUBLISHED, NewsKind.UNPUBLISHED)


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """`news` is None for events that tell nothing of rooms, and for those that do not say which room or who."""

    event_id: str
    event: str
    news: News | None


def parse_body(body: bytes, *, now: datetime) -> WebhookBody:
    """Raise ServiceError malformed for what is not a JSON object; unknown keys and values are passed over."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise ServiceError(Code.MALFORMED, "the body is not a JSON object")
    return WebhookBody(_text(event, "id"), _text(event, "event"), _news(event, now))


def _news(event: Mapping[str, Any], now: datetime) -> News | None:
    kind = _KINDS.get(_text(event, "event"))
    room = _object(event, "room")
    if kind is None or not _text(room, "sid"):
        return None
    participant, track = _object(event, "participant"), _object(event, "track")
    if kind in _VISITS and not _text(participant, "sid"):
        return None
    if kind in _PUBLICATIONS and not (_text(participant, "sid") and _text(track, "sid")):
        return None
    return News(
        kind=kind,
        room=Room(_text(room, "sid"), _text(room, "name"), _moment(room, "creationTime")),
        at=_moment(event, "createdAt") or now,
        participant=_participant(participant) if kind in _VISITS else None,
        participant_sid=_text(participant, "sid") if kind in _PUBLICATIONS else "",
        track=_track(track) if kind in _PUBLICATIONS else None,
        reason=_text(participant, "disconnectReason") if kind is NewsKind.LEFT else "",
    )


def _participant(value: Mapping[str, Any]) -> Participant:
    kind = _text(value, "kind")
    permission = _object(value, "permission")
    return Participant(
        sid=_text(value, "sid"),
        identity=_text(value, "identity"),
        name=_text(value, "name"),
        state=ParticipantState.ACTIVE,
        kind=ParticipantKind(kind) if kind in ParticipantKind.__members__ else ParticipantKind.STANDARD,
        joined_at=_moment(value, "joinedAt"),
        hidden=permission.get("hidden") is True,
        recorder=permission.get("recorder") is True,
    )


def _track(value: Mapping[str, Any]) -> Track:
    # Proto JSON leaves out what is zero: AUDIO and UNKNOWN.
    return Track(
        sid=_text(value, "sid"),
        type=_text(value, "type") or "AUDIO",
        source=_text(value, "source") or "UNKNOWN",
        name=_text(value, "name"),
    )


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    """Without null characters and lone surrogates, which no database takes."""
    found = value.get(key)
    if not isinstance(found, str):
        return ""
    return found.replace("\0", "").encode("utf-8", "replace").decode()


def _moment(value: Mapping[str, Any], key: str) -> datetime | None:
    """`key` in seconds, or the finer `key`Ms; int64 travel as strings."""
    for name, unit in ((f"{key}Ms", 1000), (key, 1)):
        try:
            number = int(value.get(name) or 0)
            if number > 0:
                return datetime.fromtimestamp(number / unit, UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            continue
    return None
