"""What LiveKit tells a participant of a project whose rooms have a prefix, without the prefix."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from livekit.protocol.rtc import SignalResponse

from server.auth.livekit_join import JoinTokens
from server.auth.livekit_tokens import LiveKitCaller


class ShownFrames:
    """Rewrites the few messages of LiveKit's that name the room or carry a token; all others pass untouched."""

    def __init__(self, tokens: JoinTokens, caller: LiveKitCaller) -> None:
        self._tokens = tokens
        self._caller = caller
        self._prefix = tokens.prefix(caller)

    async def shown(self, frame: str | bytes) -> str | bytes | None:
        """The frame for the participant, None if it is not for them."""
        if not self._prefix:
            return frame
        message: Any = SignalResponse()
        if isinstance(frame, bytes):
            message.ParseFromString(frame)
        else:
            json_format.Parse(frame, message, ignore_unknown_fields=True)
        match message.WhichOneof("message"):
            case "join":
                self._rename(message.join.room)
            case "room_update":
                self._rename(message.room_update.room)
            case "room_moved":
                self._rename(message.room_moved.room)
                token = await self._tokens.from_livekit(self._caller, message.room_moved.token)
                message.room_moved.token = token or ""
            case "refresh_token":
                token = await self._tokens.from_livekit(self._caller, message.refresh_token)
                if token is None:
                    return None
                message.refresh_token = token
            case _:
                return frame
        if isinstance(frame, bytes):
            data: bytes = message.SerializeToString()
            return data
        return json_format.MessageToJson(message, indent=None)

    def _rename(self, room: Any) -> None:
        room.name = room.name.removeprefix(self._prefix)
