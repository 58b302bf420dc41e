"""The table of served methods, made from descriptors and bound to service objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from generated.baxcloud.v1 import (
    egress_pb2,
    ingress_pb2,
    options_pb2,
    project_pb2,
    room_pb2,
    video_conversion_pb2,
    webhook_pb2,
)
from server.context import Caller, SignedRequest
from server.rpc.descriptors import option

OWN_FILES: tuple[FileDescriptor, ...] = (
    egress_pb2.DESCRIPTOR,
    ingress_pb2.DESCRIPTOR,
    project_pb2.DESCRIPTOR,
    room_pb2.DESCRIPTOR,
    video_conversion_pb2.DESCRIPTOR,
    webhook_pb2.DESCRIPTOR,
)
_HTTP_METHODS = ("get", "post", "put", "patch", "delete")


class RegistryError(Exception):
    """The descriptors and the services given do not make a table that can be served."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP route of a method, as `google.api.http` states it; `body` is empty, `*` or a field name."""

    verb: str
    template: str
    body: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How a method behaves beyond its messages; `access` is a number of the service's own authoriser.

    `validated` is False where requests are judged by whoever they are passed on to.
    """

    access: int
    validated: bool = True
    creates: bool = False
    rest_status: int = 0
    rest_envelope: bool = False
    rest_problem: bool = False
    sse_event: str = ""


class Authoriser(Protocol):
    """Decides who may call. One per service, so that other surfaces can bring their own credentials."""

    def check(self, method: Method) -> None:
        """Raise RegistryError at start-up if the method's access cannot be decided by this authoriser."""
        ...

    async def authenticate(
        self, method: Method, headers: Mapping[str, str], signed: SignedRequest | None
    ) -> Caller:
        """The caller, from lower-case headers; raise ServiceError if it may not call the method.

        `signed` is what a signature among them must cover, None where none is accepted.
        """
        ...

    def authorise(self, method: Method, caller: Caller, request: Message) -> None:
        """What needs the request itself; raise ServiceError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method and everything that dispatch and the transports need to know about it.

    `handler` is the bound `snake_case` method of the service object, or None where there is no such object or method.
    """

    service: str
    name: str
    descriptor: MethodDescriptor = field(repr=False)
    request_type: type[Message] = field(repr=False)
    reply_type: type[Message] = field(repr=False)
    rule: Rule
    bindings: tuple[Binding, ...]
    authoriser: Authoriser = field(repr=False)
    handler: Callable[[Any, Any], Any] | None = field(repr=False)

    @property
    def full_name(self) -> str:
        """`baxcloud.v1.RoomService/GetRoom`."""
        return f"{self.service}/{self.name}"

    @property
    def client_streaming(self) -> bool:
        return bool(self.descriptor.client_streaming)

    @property
    def server_streaming(self) -> bool:
        return bool(self.descriptor.server_streaming)


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """A service to serve: its descriptor, its object (None: nothing is implemented) and its authoriser."""

    descriptor: ServiceDescriptor
    implementation: object | None
    authoriser: Authoriser
    rule_of: Callable[[MethodDescriptor], Rule]


class Registry:
    """All served methods by `package.Service/Method`."""

    def __init__(self, services: Sequence[ServiceBinding]) -> None:
        self.services: dict[str, tuple[Method, ...]] = {}
        self._by_name: dict[str, Method] = {}
        for service in services:
            name = service.descriptor.full_name
            if name in self.services:
                raise RegistryError(f"{name} is given twice")
            methods = tuple(_methods(service))
            self.services[name] = methods
            self._by_name |= {method.full_name: method for method in methods}

    def __iter__(self) -> Iterator[Method]:
        return iter(self._by_name.values())

    def find(self, full_name: str) -> Method | None:
        return self._by_name.get(full_name)


def own_services(implementations: Mapping[str, object], authoriser: Authoriser) -> list[ServiceBinding]:
    """All services of `baxcloud.v1`, bound to the objects given by service name (`RoomService`).

    Raises RegistryError for a name that no proto defines.
    """
    descriptors = {service.name: service for file in OWN_FILES for service in file.services_by_name.values()}
    if unknown := sorted(set(implementations) - set(descriptors)):
        raise RegistryError(f"no proto defines {', '.join(unknown)}")
    return [
        ServiceBinding(descriptor, implementations.get(name), authoriser, own_rule)
        for name, descriptor in descriptors.items()
    ]


def own_rule(descriptor: MethodDescriptor) -> Rule:
    """The `rule` option of one of our methods; raises RegistryError where it is missing."""
    given = option(descriptor.GetOptions(), options_pb2.rule)
    if given.access == options_pb2.ACCESS_UNSPECIFIED:
        raise RegistryError(f"{descriptor.full_name} does not say who may call it")
    return Rule(
        access=given.access,
        creates=given.creates,
        rest_status=given.rest_status,
        rest_envelope=given.rest_envelope,
        rest_problem=given.rest_problem,
        sse_event=given.sse_event,
    )


def snake_case(name: str) -> str:
    """`CreateLiveKitKey` → `create_live_kit_key`, as the generated service protocols spell it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def bindings_of(descriptor: MethodDescriptor) -> tuple[Binding, ...]:
    """The method's HTTP routes, the main one first."""
    options: descriptor_pb2.MethodOptions = descriptor.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return ()
    rule = options.Extensions[annotations_pb2.http]
    found = []
    for one in (rule, *rule.additional_bindings):
        verb = one.WhichOneof("pattern")
        if verb not in _HTTP_METHODS:
            raise RegistryError(f"{descriptor.full_name}: HTTP pattern {verb} is not supported")
        found.append(Binding(verb.upper(), getattr(one, verb), one.body))
    return tuple(found)


def _methods(service: ServiceBinding) -> list[Method]:
    names: dict[str, str] = {}
    methods = []
    for descriptor in service.descriptor.methods:
        attribute = snake_case(descriptor.name)
        if attribute in names:
            raise RegistryError(f"{descriptor.full_name} and {names[attribute]} are both {attribute}()")
        names[attribute] = descriptor.name
        if descriptor.client_streaming and descriptor.server_streaming:
            raise RegistryError(f"{descriptor.full_name}: streams in both directions are not supported")
        method = Method(
            service=service.descriptor.full_name,
            name=descriptor.name,
            descriptor=descriptor,
            request_type=message_factory.GetMessageClass(descriptor.input_type),
            reply_type=message_factory.GetMessageClass(descriptor.output_type),
            rule=service.rule_of(descriptor),
            bindings=bindings_of(descriptor),
            authoriser=service.authoriser,
            handler=_handler(service.implementation, attribute),
        )
        service.authoriser.check(method)
        methods.append(method)
    return methods


def _handler(implementation: object | None, attribute: str) -> Callable[[Any, Any], Any] | None:
    found = getattr(implementation, attribute, None)
    if found is not None and not callable(found):
        raise RegistryError(f"{type(implementation).__name__}.{attribute} is not a method")
    return found
