"""What a room is to have recorded of itself when a join token opens it (`roomConfig.egress`, livekit-surface.md 5.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from google.protobuf import json_format

from server.auth.livekit_join import JoinTokens
from server.auth.livekit_tokens import LiveKitCaller, TokenRefused
from server.domain.room_names import RoomNames
from server.egress.room_egress import RoomEgresses, livekit_class
from server.errors import ServiceError
from server.ports.rooms import RoomListing

_log = logging.getLogger(__name__)

Begin = Callable[[], Coroutine[Any, Any, None]]


class JoinEgress:
    """For participants who come through us."""

    def __init__(
        self, egresses: RoomEgresses, joins: JoinTokens, rooms: RoomListing, names: RoomNames
    ) -> None:
        self._egresses = egresses
        self._joins = joins
        self._rooms = rooms
        self._names = names

    async def prepare(self, caller: LiveKitCaller) -> Begin | None:
        """What to do once the participant is in; None where nothing is asked for or the room is open already.

        Raise TokenRefused for what cannot be read, ServiceError for what could not be started.
        """
        given = self._joins.room_egress(caller)
        room: str = caller.video.get("room") or ""
        if given is None or not room or caller.project_id is None:
            return None
        livekit_room = room if caller.of_livekit else self._joins.prefix(caller) + room
        wanted = _parsed(given)
        key = caller.key_id or ""
        await self._egresses.check(self._names.owner(livekit_room).project_id, wanted, default_key=key)
        if await self._rooms.rooms([livekit_room]):
            return None
        return partial(self._begin, livekit_room, wanted, key)

    async def _begin(self, livekit_room: str, wanted: Any, key: str) -> None:
        """The participant stays whatever becomes of it."""
        owned = self._names.owner(livekit_room)
        try:
            for room in await self._rooms.rooms([livekit_room]):
                await self._egresses.begin(owned.project_id, room.sid, owned.name, wanted, default_key=key)
        except ServiceError as error:
            _log.warning("the egress that a token asks for is not started: %s", error.message)


def _parsed(given: Mapping[str, Any]) -> Any:
    wanted = livekit_class("RoomEgress")()
    try:
        json_format.ParseDict(dict(given), wanted, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError):
        raise TokenRefused("invalid token: its claims have the wrong types") from None
    return wanted
