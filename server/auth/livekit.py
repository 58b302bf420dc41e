"""Who may call `livekit.*`: tokens with LiveKit's grants, checked as LiveKit checks them (livekit-surface.md 1.2, 1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from server.auth.livekit_tokens import LiveKitCaller, LiveKitTokens, bearer
from server.context import Caller, SignedRequest
from server.errors import unauthenticated
from server.rpc.registry import Method, RegistryError, Rule


class Grant(IntEnum):
    """What a token must grant for a method; `Rule.access` of `livekit.*` methods."""

    ROOM_CREATE = 1
    ROOM_LIST = 2
    ROOM_ADMIN = 3
    DESTINATION = 4
    ROOM_RECORD = 5
    INGRESS_ADMIN = 6
    SIP_ADMIN = 7
    SIP_CALL = 8
    SIP_TRANSFER = 9
    # LiveKit Cloud's own rules; whoever is behind decides.
    ANY = 10


_BY_SERVICE = {
    "livekit.RoomService": Grant.ROOM_ADMIN,
    "livekit.Egress": Grant.ROOM_RECORD,
    "livekit.Ingress": Grant.INGRESS_ADMIN,
    "livekit.AgentDispatchService": Grant.ROOM_ADMIN,
    "livekit.SIP": Grant.SIP_ADMIN,
    "livekit.Connector": Grant.ANY,
}
_BY_METHOD = {
    "livekit.RoomService.CreateRoom": Grant.ROOM_CREATE,
    "livekit.RoomService.DeleteRoom": Grant.ROOM_CREATE,
    "livekit.RoomService.ListRooms": Grant.ROOM_LIST,
    "livekit.RoomService.ForwardParticipant": Grant.DESTINATION,
    "livekit.RoomService.MoveParticipant": Grant.DESTINATION,
    "livekit.SIP.CreateSIPParticipant": Grant.SIP_CALL,
    "livekit.SIP.TransferSIPParticipant": Grant.SIP_TRANSFER,
}
_VIDEO_FLAGS = {
    Grant.ROOM_CREATE: "roomCreate",
    Grant.ROOM_LIST: "roomList",
    Grant.ROOM_RECORD: "roomRecord",
    Grant.INGRESS_ADMIN: "ingressAdmin",
}


def livekit_rule(descriptor: MethodDescriptor) -> Rule:
    """Raise RegistryError for a service whose grants nobody wrote down."""
    service = descriptor.containing_service.full_name
    if service not in _BY_SERVICE:
        raise RegistryError(f"{service}: its grants are not known")
    return Rule(access=_BY_METHOD.get(descriptor.full_name, _BY_SERVICE[service]), validated=False)


class LiveKitAuthoriser:
    """Implements `Authoriser` for `livekit.*`. A missing grant is 401 `permissions denied`, as is no token (B-82)."""

    def __init__(self, tokens: LiveKitTokens) -> None:
        self._tokens = tokens

    def check(self, method: Method) -> None:
        if method.rule.access not in set(Grant):
            raise RegistryError(f"{method.full_name} does not say who may call it")

    async def authenticate(
        self, method: Method, headers: Mapping[str, str], signed: SignedRequest | None
    ) -> Caller:
        """Raise TokenRefused; without any token the caller is nobody, and only its grants are missing."""
        return await self._tokens.verify(bearer(headers))

    def authorise(self, method: Method, caller: Caller, request: Message) -> None:
        """By the names that the project knows: a token and a request both hold them."""
        if (
            not isinstance(caller, LiveKitCaller)
            or caller.project_id is None
            or not _granted(Grant(method.rule.access), caller, request)
        ):
            raise unauthenticated("permissions denied")


def _granted(grant: Grant, caller: LiveKitCaller, request: Message) -> bool:
    video, sip = caller.video, caller.sip
    match grant:
        case Grant.ROOM_ADMIN:
            return _is_admin(video, request, "room")
        case Grant.DESTINATION:
            there = video.get("destinationRoom") or ""
            return _is_admin(video, request, "room") and there == getattr(request, "destination_room")  # noqa: B009
        case Grant.SIP_ADMIN:
            return sip.get("admin") is True
        case Grant.SIP_CALL:
            return sip.get("call") is True
        case Grant.SIP_TRANSFER:
            return sip.get("call") is True and _is_admin(video, request, "room_name")
        case Grant.ANY:
            return True
        case _:
            return video.get(_VIDEO_FLAGS[grant]) is True


def _is_admin(video: Mapping[str, object], request: Message, field: str) -> bool:
    return video.get("roomAdmin") is True and (video.get("room") or "") == getattr(request, field)
