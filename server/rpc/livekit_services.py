"""LiveKit's own services, from its package's descriptors, bound for the registry (design section 3)."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from livekit.protocol import agent_dispatch, connector, egress, ingress, room, sip

from server.auth.livekit import livekit_rule
from server.context import CallContext
from server.rpc.registry import Authoriser, ServiceBinding, snake_case


class Passed(Protocol):
    """What answers all methods of a service but those that it has a method of their own for."""

    def call(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Awaitable[Message]: ...


def livekit_services(
    *, rooms: Passed, egress_engine: Passed, ingress_engine: Passed, forward: Passed, authoriser: Authoriser
) -> list[ServiceBinding]:
    """The services of 1.3, each with the object that answers it."""
    answered = (
        (room, "RoomService", rooms),
        (egress, "Egress", egress_engine),
        (ingress, "Ingress", ingress_engine),
        (agent_dispatch, "AgentDispatchService", forward),
        (sip, "SIP", forward),
        (connector, "Connector", forward),
    )
    return [
        _bound(file.DESCRIPTOR.services_by_name[name], service, authoriser)
        for file, name, service in answered
    ]


def _bound(descriptor: ServiceDescriptor, service: Passed, authoriser: Authoriser) -> ServiceBinding:
    handlers = {}
    for method in descriptor.methods:
        name = snake_case(method.name)
        handlers[name] = partial(getattr(service, name, service.call), method)
    return ServiceBinding(descriptor, SimpleNamespace(**handlers), authoriser, livekit_rule)
