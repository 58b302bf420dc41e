"""Rooms and participants through `livekit.RoomService`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from server.domain.room import Participant, ParticipantKind, ParticipantState, Room, Track
from server.ports.livekit import LiveKitGateway

if TYPE_CHECKING:
    from google.protobuf.message import Message

_CREATE: Mapping[str, object] = {"roomCreate": True}
_LIST: Mapping[str, object] = {"roomList": True}


class LiveKitRooms:
    """Implements `RoomGateway`."""

    def __init__(self, gateway: LiveKitGateway) -> None:
        self._gateway = gateway

    async def create(
        self, name: str, *, max_participants: int = 0, empty_timeout: int = 0, metadata: str = ""
    ) -> Room:
        from livekit.protocol import models, room

        request = room.CreateRoomRequest(
            name=name,
            max_participants=max_participants,
            empty_timeout=empty_timeout,
            # LiveKit's own default closes a room 20 s after the last one left, however long it may stay empty before.
            departure_timeout=empty_timeout,
            metadata=metadata,
        )
        reply = models.Room()
        await self._call("CreateRoom", request, reply, _CREATE)
        return _room(reply)

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        from livekit.protocol import room

        reply = room.ListRoomsResponse()
        await self._call("ListRooms", room.ListRoomsRequest(names=names), reply, _LIST)
        return tuple(map(_room, reply.rooms))

    async def delete(self, name: str) -> None:
        from livekit.protocol import room

        await self._call("DeleteRoom", room.DeleteRoomRequest(room=name), room.DeleteRoomResponse(), _CREATE)

    async def set_room_metadata(self, name: str, metadata: str) -> Room:
        from livekit.protocol import models, room

        reply = models.Room()
        request = room.UpdateRoomMetadataRequest(room=name, metadata=metadata)
        await self._call("UpdateRoomMetadata", request, reply, _admin(name))
        return _room(reply)

    async def participants(self, name: str) -> tuple[Participant, ...]:
        from livekit.protocol import room

        reply = room.ListParticipantsResponse()
        await self._call("ListParticipants", room.ListParticipantsRequest(room=name), reply, _admin(name))
        return tuple(map(_participant, reply.participants))

    async def participant(self, name: str, identity: str) -> Participant:
        from livekit.protocol import models, room

        reply = models.ParticipantInfo()
        request = room.RoomParticipantIdentity(room=name, identity=identity)
        await self._call("GetParticipant", request, reply, _admin(name))
        return _participant(reply)

    async def remove_participant(self, name: str, identity: str) -> None:
        from livekit.protocol import room

        request = room.RoomParticipantIdentity(room=name, identity=identity)
        await self._call("RemoveParticipant", request, room.RemoveParticipantResponse(), _admin(name))

    async def set_participant_metadata(self, name: str, identity: str, metadata: str) -> Participant:
        from livekit.protocol import models, room

        reply = models.ParticipantInfo()
        request = room.UpdateParticipantRequest(room=name, identity=identity, metadata=metadata)
        await self._call("UpdateParticipant", request, reply, _admin(name))
        return _participant(reply)

    async def _call(
        self, method: str, request: Message, reply: Message, grants: Mapping[str, object]
    ) -> None:
        answer = await self._gateway.call(
            f"livekit.RoomService/{method}", request.SerializeToString(), grants=grants
        )
        reply.ParseFromString(answer)


def _admin(room: str) -> Mapping[str, object]:
    return {"roomAdmin": True, "room": room}


def _room(message: Any) -> Room:
    return Room(
        sid=message.sid,
        name=message.name,
        created_at=_moment(message.creation_time, message.creation_time_ms),
        max_participants=message.max_participants,
        empty_timeout=message.empty_timeout,
        metadata=message.metadata,
        active_recording=message.active_recording,
    )


def _participant(message: Any) -> Participant:
    from livekit.protocol import models

    return Participant(
        sid=message.sid,
        identity=message.identity,
        name=message.name,
        state=ParticipantState(models.ParticipantInfo.State.Name(message.state)),
        kind=_kind(models.ParticipantInfo.Kind.Name, message.kind),
        joined_at=_moment(message.joined_at, message.joined_at_ms),
        hidden=message.permission.hidden,
        recorder=message.permission.recorder,
        metadata=message.metadata,
        is_publisher=message.is_publisher,
        tracks=tuple(map(_track, message.tracks)),
    )


def _kind(name_of: Any, number: int) -> ParticipantKind:
    # A newer LiveKit may know kinds that our messages do not; such a one is taken for a person.
    try:
        return ParticipantKind(name_of(number))
    except ValueError:
        return ParticipantKind.STANDARD


def _track(message: Any) -> Track:
    from livekit.protocol import models

    return Track(
        sid=message.sid,
        type=models.TrackType.Name(message.type),
        source=models.TrackSource.Name(message.source),
        name=message.name,
        muted=message.muted,
    )


def _moment(seconds: int, millis: int) -> datetime | None:
    """LiveKit tells times in seconds and, since 1.8, in milliseconds too; 0 is unset."""
    value = millis / 1000 if millis else seconds
    return datetime.fromtimestamp(value, UTC) if value else None
