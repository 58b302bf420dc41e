"""`livekit.RoomService` on the LiveKit behind, with room names mapped per project (issue section 3, design section 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from server.context import CallContext
from server.domain.room_names import MARK, RoomNames
from server.egress.room_egress import RoomEgresses, livekit_class
from server.errors import ServiceError, failed_precondition, invalid
from server.ids import ProjectId
from server.ports.livekit import LiveKitGateway

# Request fields that hold the name of a room; `room` where nothing is said.
_ROOM_FIELDS = {
    "CreateRoom": ("name",),
    "ForwardParticipant": ("room", "destination_room"),
    "MoveParticipant": ("room", "destination_room"),
}
_GRANTS: Mapping[str, Mapping[str, object]] = {
    "CreateRoom": {"roomCreate": True},
    "DeleteRoom": {"roomCreate": True},
}
_LIST_GRANTS = {"roomList": True}
# LiveKit's own default for `PerformRpc`, and what it takes on top of the participant's answer.
_RPC_TIMEOUT_SEC = 10.0
_RPC_OVERHEAD_SEC = 5.0


class LiveKitRoomService:
    """All methods of `livekit.RoomService`. Grants are checked before; our own call carries only those it needs.

    Requests are written anew from what was understood of them, so that LiveKit never reads another room out of the same
    bytes than we did; fields unknown here are dropped for the same reason.
    """

    def __init__(self, gateway: LiveKitGateway, names: RoomNames, egresses: RoomEgresses) -> None:
        self._gateway = gateway
        self._names = names
        self._egresses = egresses

    async def create_room(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """With `egress`, what it asks for begins with the room, if there was none (livekit-surface.md 5.5).

        LiveKit itself is never told of it: it has no egress. What cannot begin fails the call and leaves no room behind,
        so that the same call can be made again.
        """
        if not request.egress.ByteSize():
            request.ClearField("egress")
            return await self.call(method, request, ctx)
        wanted = type(request.egress)()
        wanted.CopyFrom(request.egress)
        request.ClearField("egress")
        key = ctx.caller.key_id or ""
        await self._egresses.check(ctx.project_id, wanted, default_key=key)
        was_open = await self._is_open(ctx.project_id, request.name)
        room = await self.call(method, request, ctx)
        if not was_open:
            try:
                await self._egresses.begin(ctx.project_id, room.sid, room.name, wanted, default_key=key)
            except ServiceError:
                await self._delete(ctx.project_id, room.name)
                raise
        return room

    async def list_rooms(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """Rooms of the project only; LiveKit lists those of all projects."""
        project_id = ctx.project_id
        if request.names:
            # A name that can only be another project's is one that does not exist.
            own = [
                self._names.prefix(project_id) + name for name in request.names if not name.startswith(MARK)
            ]
            if not own:
                return _message(method, b"")
            request.names[:] = own
        request.DiscardUnknownFields()
        answer = await self._gateway.call(
            "livekit.RoomService/ListRooms", request.SerializeToString(), grants=_LIST_GRANTS
        )
        reply = _message(method, answer)
        kept = [room for room in reply.rooms if self._show(project_id, room)]
        if len(kept) == len(reply.rooms):
            return reply
        return GetMessageClass(method.output_type)(rooms=kept)

    async def call(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """Every other method: one room in, at most one room out."""
        project_id = ctx.project_id
        self._check_creation(method, project_id, request)
        prefix = self._names.prefix(project_id)
        for field in _ROOM_FIELDS.get(method.name, ("room",)):
            name: str = getattr(request, field)
            if name.startswith(MARK):
                raise invalid(field, f"must not start with {MARK!r}")
            setattr(request, field, prefix + name)
        request.DiscardUnknownFields()
        with _shown(prefix):
            answer = await self._gateway.call(
                f"livekit.RoomService/{method.name}",
                request.SerializeToString(),
                grants=_grants(method, request),
                timeout_sec=_timeout(method, request),
            )
        reply = _message(method, answer)
        if method.output_type.full_name == "livekit.Room":
            self._show(project_id, reply)
        return reply

    async def _is_open(self, project_id: ProjectId, name: str) -> bool:
        asked = livekit_class("ListRoomsRequest")(names=[self._names.prefix(project_id) + name])
        answer = await self._gateway.call(
            "livekit.RoomService/ListRooms", asked.SerializeToString(), grants=_LIST_GRANTS
        )
        return bool(livekit_class("ListRoomsResponse").FromString(answer).rooms)

    async def _delete(self, project_id: ProjectId, name: str) -> None:
        asked = livekit_class("DeleteRoomRequest")(room=self._names.prefix(project_id) + name)
        with suppress(ServiceError):
            await self._gateway.call(
                "livekit.RoomService/DeleteRoom", asked.SerializeToString(), grants=_GRANTS["DeleteRoom"]
            )

    def _check_creation(self, method: MethodDescriptor, project_id: ProjectId, request: Any) -> None:
        if method.name != "CreateRoom":
            return
        if request.agents and self._names.prefix(project_id):
            # Agent workers are LiveKit's, not a project's: they would be told the room's name and given a key to it.
            raise failed_precondition("agents can be dispatched by the bootstrap project only")

    def _show(self, project_id: ProjectId, room: Any) -> bool:
        """Give a room the name that its project knows; False if it is another project's."""
        owned = self._names.owner(room.name)
        if owned.project_id != project_id:
            return False
        room.name = owned.name
        return True


def _message(method: MethodDescriptor, data: bytes) -> Any:
    message = GetMessageClass(method.output_type)()
    message.ParseFromString(data)
    return message


def _grants(method: MethodDescriptor, request: Any) -> Mapping[str, object]:
    fixed = _GRANTS.get(method.name)
    if fixed is not None:
        return fixed
    grants: dict[str, object] = {"roomAdmin": True, "room": request.room}
    if "destination_room" in method.input_type.fields_by_name:
        grants["destinationRoom"] = request.destination_room
    return grants


def _timeout(method: MethodDescriptor, request: Any) -> float | None:
    if method.name != "PerformRpc":
        return None
    return (request.response_timeout_ms / 1000 or _RPC_TIMEOUT_SEC) + _RPC_OVERHEAD_SEC


@contextmanager
def _shown(prefix: str) -> Iterator[None]:
    """LiveKit's messages quote rooms by its own names."""
    try:
        yield
    except ServiceError as error:
        if not prefix or prefix not in f"{error.message}{error.meta}":
            raise
        meta = {key: value.replace(prefix, "") for key, value in error.meta.items()}
        raise ServiceError(error.code, error.message.replace(prefix, ""), meta=meta) from None
