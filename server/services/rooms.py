"""RoomService: rooms, access tokens and participants of a project, on the LiveKit behind (RM, TK, PT)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from google.protobuf.empty_pb2 import Empty

from generated.baxcloud.v1 import room_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.room import Participant, Room
from server.domain.room_names import RoomNames
from server.errors import Code, ServiceError, invalid, not_found
from server.ids import ProjectId
from server.ports.livekit import LiveKitSource
from server.ports.rooms import RoomGateway
from server.ports.unit_of_work import Database
from server.rooms.journal import RoomJournal
from server.services.messages import to_timestamp
from server.services.room_messages import participant_to_message, room_to_message
from server.services.tokens import DEFAULT_TTL_SEC, JoinGrants, JoinToken

# LiveKit's limits, bytes; it refuses to let in whoever brings a longer one.
MAX_IDENTITY_BYTES = 256
MAX_NAME_BYTES = 256
# Questions to LiveKit that one ListRooms has open at a time.
_CONCURRENCY = 16


class Rooms:
    """Implements `baxcloud.v1.RoomService`. A room of another project is answered like one that does not exist."""

    def __init__(
        self,
        gateway: RoomGateway,
        livekit: LiveKitSource,
        names: RoomNames,
        journal: RoomJournal,
        database: Database,
        clock: Clock,
    ) -> None:
        self._gateway = gateway
        self._livekit = livekit
        self._names = names
        self._journal = journal
        self._database = database
        self._clock = clock

    async def create_room(self, request: pb.CreateRoomRequest, ctx: CallContext) -> pb.Room:
        """An open room is returned as it is, with its first settings, like LiveKit does (section 7)."""
        if "\0" in request.name:
            raise invalid("name", "must not contain a null character")
        room = await self._gateway.create(
            self._names.to_livekit(ctx.project_id, request.name, field="name"),
            max_participants=request.max_participants,
            empty_timeout=request.empty_timeout,
            metadata=request.metadata,
        )
        wanted = request.enable_recording if request.HasField("enable_recording") else True
        await self._journal.created(room, enable_recording=wanted)
        return (await self._to_messages(ctx.project_id, [room]))[0]

    async def list_rooms(self, request: pb.ListRoomsRequest, ctx: CallContext) -> pb.ListRoomsResponse:
        own = [
            room
            for room in await self._gateway.rooms()
            if self._names.owner(room.name).project_id == ctx.project_id
        ]
        items = await self._to_messages(ctx.project_id, own)
        return pb.ListRoomsResponse(items=items, total=len(items))

    async def get_room(self, request: pb.GetRoomRequest, ctx: CallContext) -> pb.Room:
        found = await self._gateway.rooms([self._look_up(ctx.project_id, request.name)])
        if not found:
            raise not_found("room", request.name)
        return (await self._to_messages(ctx.project_id, found))[0]

    async def delete_room(self, request: pb.DeleteRoomRequest, ctx: CallContext) -> Empty:
        with _missing("room", request.name):
            await self._gateway.delete(self._look_up(ctx.project_id, request.name))
        return Empty()

    async def update_room_metadata(self, request: pb.UpdateRoomMetadataRequest, ctx: CallContext) -> pb.Room:
        with _missing("room", request.name):
            room = await self._gateway.set_room_metadata(
                self._look_up(ctx.project_id, request.name), request.metadata
            )
        return (await self._to_messages(ctx.project_id, [room]))[0]

    async def create_token(self, request: pb.CreateTokenRequest, ctx: CallContext) -> pb.Token:
        """Who holds the token can read the room's name in LiveKit from it; LiveKit has no other way to name a room."""
        _check_bytes("participantIdentity", request.participant_identity, MAX_IDENTITY_BYTES)
        _check_bytes("participantName", request.participant_name, MAX_NAME_BYTES)
        given = request.grants
        token = JoinToken(
            room=self._names.to_livekit(ctx.project_id, request.room_name),
            identity=request.participant_identity,
            name=request.participant_name,
            metadata=request.metadata,
            grants=JoinGrants(**{field.name: value for field, value in given.ListFields()}),
            issued_at=self._clock.now(),
            ttl_sec=request.ttl if request.HasField("ttl") else DEFAULT_TTL_SEC,
        )
        livekit = await self._livekit.address()
        return pb.Token(
            token=token.sign(livekit),
            room_name=request.room_name,
            participant_identity=token.identity,
            expires_at=to_timestamp(token.expires_at),
            url=livekit.public_url,
        )

    async def list_participants(
        self, request: pb.ListParticipantsRequest, ctx: CallContext
    ) -> pb.ListParticipantsResponse:
        name = self._look_up(ctx.project_id, request.room_name)
        everyone = await self._gateway.participants(name)
        # LiveKit lists nobody for a room that it does not have.
        if not everyone and not await self._gateway.rooms([name]):
            raise not_found("room", request.room_name)
        people = [participant_to_message(one) for one in everyone if one.is_person]
        return pb.ListParticipantsResponse(items=people, total=len(people))

    async def remove_participant(self, request: pb.RemoveParticipantRequest, ctx: CallContext) -> Empty:
        with _missing("participant", request.identity):
            name = self._look_up(ctx.project_id, request.room_name)
            await self._participant(name, request.identity)
            await self._gateway.remove_participant(name, request.identity)
        return Empty()

    async def update_participant_metadata(
        self, request: pb.UpdateParticipantMetadataRequest, ctx: CallContext
    ) -> pb.Participant:
        with _missing("participant", request.identity):
            name = self._look_up(ctx.project_id, request.room_name)
            participant = await self._participant(name, request.identity)
            if request.metadata:
                participant = await self._gateway.set_participant_metadata(
                    name, request.identity, request.metadata
                )
            elif participant.metadata:
                raise invalid(
                    "metadata",
                    "must not be empty: LiveKit cannot clear a participant's metadata, only replace it",
                )
        return participant_to_message(participant)

    async def _participant(self, name: str, identity: str) -> Participant:
        """Raise ServiceError not_found for recorders too: nothing here shows or ends them."""
        participant = await self._gateway.participant(name, identity)
        if participant.is_recorder:
            raise not_found("participant", identity)
        return participant

    def _look_up(self, project_id: ProjectId, name: str) -> str:
        """LiveKit's name of a room that should exist: what can be nobody's name is just not found."""
        try:
            return self._names.to_livekit(project_id, name)
        except ServiceError:
            raise not_found("room", name) from None

    async def _to_messages(self, project_id: ProjectId, rooms: Sequence[Room]) -> list[pb.Room]:
        async with self._database.read() as tx:
            allowed = await tx.rooms.recording_settings([room.sid for room in rooms])
        gate = asyncio.Semaphore(_CONCURRENCY)

        # LiveKit's own count is up to 5 s old and takes streams and agents for participants.
        async def people_in(room: Room) -> int:
            async with gate:
                return sum(one.is_person for one in await self._gateway.participants(room.name))

        counts = await asyncio.gather(*map(people_in, rooms))
        return [
            room_to_message(
                room,
                name=self._names.owner(room.name).name,
                enable_recording=allowed.get(room.sid, True),
                people=people,
            )
            for room, people in zip(rooms, counts, strict=True)
        ]


@contextmanager
def _missing(what: str, ident: str) -> Iterator[None]:
    """LiveKit's not_found in our words, which know the caller's name of the thing."""
    try:
        yield
    except ServiceError as error:
        if error.code is Code.NOT_FOUND:
            raise not_found(what, ident) from None
        raise


def _check_bytes(field: str, value: str, limit: int) -> None:
    if len(value.encode()) > limit:
        raise invalid(field, f"must not be longer than {limit} bytes")
