"""How a recorder gets into a room of LiveKit's, and whether that room is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import jwt

from server.clock import Clock
from server.domain.egress import Egress
from server.errors import Code, ServiceError
from server.ports.livekit import LiveKitSource
from server.ports.rooms import RoomListing

TOKEN_TTL = timedelta(hours=24)
# Camera and microphone of nine people, most of whom any layout shows.
_FEW_TRACKS = 18
# More than what is gained by it is not worth waiting for.
_SOON_SEC = 0.1


@dataclass(frozen=True, slots=True)
class Admission:
    """Where LiveKit is (`ws://…`) and what lets the recorder in."""

    url: str
    token: str = field(repr=False)


class RoomDoor:
    """Admits recorders of egresses to the LiveKit behind."""

    def __init__(self, livekit: LiveKitSource, rooms: RoomListing, clock: Clock) -> None:
        self._livekit = livekit
        self._rooms = rooms
        self._clock = clock

    async def admit(self, egress: Egress) -> Admission:
        """Raise ServiceError unavailable while there is no LiveKit."""
        address = await self._livekit.address()
        now = self._clock.now()
        claims = {
            "iss": address.api_key,
            "sub": egress.id,
            "kind": "egress",
            # No `nbf`: clocks may be apart.
            "exp": int((now + TOKEN_TTL).timestamp()),
            "video": recorder_grants(egress.plan.livekit_room),
        }
        token = jwt.encode(claims, address.api_secret, algorithm="HS256")
        return Admission("ws" + address.url.removeprefix("http"), token)

    async def has_few_tracks(self, livekit_room: str) -> bool:
        """So few that a recorder may ask for all of them at once. False when LiveKit does not say, or not soon."""
        try:
            async with asyncio.timeout(_SOON_SEC):
                people = await self._rooms.participants(livekit_room)
        except Exception:  # noqa: BLE001 - a recording does not depend on it
            return False
        return sum(len(one.tracks) for one in people) <= _FEW_TRACKS

    async def sid(self, livekit_room: str) -> str:
        """Of the room by that name, "" if LiveKit has none. Raise ServiceError unavailable if LiveKit cannot say."""
        try:
            rooms = await self._rooms.rooms([livekit_room])
        except ServiceError as error:
            if error.code is Code.NOT_FOUND:
                return ""
            raise
        return next((room.sid for room in rooms if room.name == livekit_room), "")


def recorder_grants(livekit_room: str) -> Mapping[str, object]:
    """A hidden recorder that can do nothing but receive (design section 7)."""
    return {
        "roomJoin": True,
        "room": livekit_room,
        "canSubscribe": True,
        "canPublish": False,
        "canPublishData": False,
        "hidden": True,
        "recorder": True,
    }
