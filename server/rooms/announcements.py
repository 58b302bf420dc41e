"""Announcements as webhook events: the core envelope, and RTCstack's flat shape beside it (E.4, B-67)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from server.clock import iso_seconds
from server.domain.webhook import NewEvent
from server.rooms.news import NewsKind
from server.rooms.state import Announcement
from server.webhooks.envelopes import core_event, rtcstack_event
from server.webhooks.events import rtcstack_names


def events_of(announcement: Announcement, *, now: datetime) -> list[NewEvent]:
    """The canonical event first. All events of a room's name have one subject, so that they arrive in order."""
    room = announcement.room
    name = announcement.kind.value
    subject = f"room:{room.name}"
    data = event_data(announcement, now=now)
    fields = {"roomId": room.name, **{key: value for key, value in data.items() if key != "roomName"}}
    return [
        core_event(name, project_id=room.project_id, subject=subject, data=data, now=now),
        *(
            rtcstack_event(flat, project_id=room.project_id, subject=subject, fields=fields, now=now)
            for flat in rtcstack_names(name)
        ),
    ]


def event_data(announcement: Announcement, *, now: datetime) -> Mapping[str, Any]:
    """`sid` is of what the event is about; `noticedAt` is there when it came to light later than it happened."""
    data: dict[str, Any] = {"roomName": announcement.room.name, **_about(announcement)}
    if announcement.reason:
        data["reason"] = announcement.reason
    if announcement.noticed:
        data["noticedAt"] = iso_seconds(now)
    return data


def _about(announcement: Announcement) -> Mapping[str, Any]:
    room, visit, publication = announcement.room, announcement.visit, announcement.publication
    if visit is None:
        times: dict[str, Any] = {"startedAt": iso_seconds(room.started_at)}
        if announcement.kind is NewsKind.ROOM_FINISHED and room.finished_at:
            times["finishedAt"] = iso_seconds(room.finished_at)
        return {"sid": room.sid, **times}
    who = {"roomSid": room.sid, "identity": visit.identity, "name": visit.name}
    if publication is None:
        times = {"joinedAt": iso_seconds(visit.joined_at)}
        if announcement.kind is NewsKind.LEFT and visit.left_at:
            times["leftAt"] = iso_seconds(visit.left_at)
        return {**who, "sid": visit.sid, **times}
    return {
        **who,
        "participantSid": visit.sid,
        "sid": publication.sid,
        "type": publication.type,
        "source": publication.source,
        "trackName": publication.name,
    }
