"""LiveKit's webhook bodies as they were seen on the wire, for tests of what follows from them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from server.domain.room_names import RoomNames
from server.ids import ProjectId
from server.rooms.news import News
from server.rooms.webhook_body import parse_body

NOW = datetime(2026, 3, 29, 14, 30, 5, tzinfo=UTC)
PROJECT = ProjectId("cl_default")
OTHER = ProjectId("cl_other")
NAMES = RoomNames(PROJECT)
_counter = iter(range(1, 1_000_000))


def body(
    event: str,
    *,
    room: str = "team",
    sid: str = "RM_1",
    who: str = "",
    track: str = "",
    kind: str = "",
    **permission: bool,
) -> bytes:
    """`who` becomes identity and connection; track events carry little of a participant, as LiveKit's do."""
    message: dict[str, Any] = {
        "event": event,
        "room": {"sid": sid, "name": room},
        "id": f"EV_{next(_counter)}",
        "createdAt": "1774794600",
    }
    if not track:
        message["room"] |= {
            "creationTime": "1774794500",
            "creationTimeMs": "1774794500250",
            "emptyTimeout": 300,
        }
    if who:
        message["participant"] = {"sid": f"PA_{who}", "identity": who}
    if who and not track:
        message["participant"] |= {
            "state": "DISCONNECTED" if event == "participant_left" else "ACTIVE",
            "name": who.title(),
            "joinedAt": "1774794510",
            "permission": {"canSubscribe": True, **permission},
        }
        if kind:
            message["participant"]["kind"] = kind
        if event == "participant_left":
            message["participant"]["disconnectReason"] = "CLIENT_INITIATED"
    if track:
        message["track"] = {"sid": f"TR_{track}", "type": "VIDEO", "source": "CAMERA", "name": "cam"}
    return json.dumps(message).encode()


def news(event: str, **about: Any) -> News:
    found = parse_body(body(event, **about), now=NOW).news
    assert found is not None
    return found
