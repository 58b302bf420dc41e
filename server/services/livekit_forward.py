"""Services of LiveKit's that are passed on as they are, and those whose engines this server does not have yet."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from server.auth.livekit_tokens import LiveKitCaller
from server.context import CallContext
from server.domain.room_names import MARK, RoomNames
from server.errors import failed_precondition, invalid, unavailable
from server.ports.livekit import LiveKitGateway

# Dialling out and WhatsApp calls wait for people; LiveKit's SDKs wait as long.
_TIMEOUT_SEC = 30.0
_NO_INGRESS = "ingress is not available on this server: it has no ingress engine"


class LiveKitForward:
    """`AgentDispatchService`, `SIP` and `Connector`, for the bootstrap project only.

    Trunks, rules, agents and numbers belong to the LiveKit as a whole: another project could reach those of its neighbours,
    and agents would see LiveKit's names of rooms.
    """

    def __init__(self, gateway: LiveKitGateway, names: RoomNames) -> None:
        self._gateway = gateway
        self._names = names

    async def call(self, method: MethodDescriptor, request: Message, ctx: CallContext) -> Message:
        """Raise unimplemented where the LiveKit behind has no such method."""
        service = method.containing_service
        if ctx.project_id != self._names.bootstrap_project_id:
            raise failed_precondition(f"{service.full_name} is open to the bootstrap project only")
        request.DiscardUnknownFields()
        data = request.SerializeToString()
        if MARK.encode() in data and (path := _foreign(request)):
            raise invalid(path, f"must not start with {MARK!r}")
        assert isinstance(ctx.caller, LiveKitCaller)
        answer = await self._gateway.call(
            f"{service.full_name}/{method.name}",
            data,
            grants=ctx.caller.video,
            sip=ctx.caller.sip,
            timeout_sec=_TIMEOUT_SEC,
        )
        reply = GetMessageClass(method.output_type)()
        reply.ParseFromString(answer)
        return reply


class PendingIngress:
    """`livekit.Ingress` while there is no ingress engine."""

    async def call(self, method: MethodDescriptor, request: Message, ctx: CallContext) -> Message:
        raise unavailable(_NO_INGRESS)


def _foreign(message: Message) -> str | None:
    """The field of a text that could name another project's room."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            if any(text.startswith(MARK) for text in (value if field.is_repeated else (value,))):
                return field.name
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if isinstance(value, Mapping):
                inner = [one for one in value.values() if isinstance(one, Message)]
            else:
                inner = value if field.is_repeated else [value]
            if any(_foreign(one) for one in inner):
                return field.name
    return None
