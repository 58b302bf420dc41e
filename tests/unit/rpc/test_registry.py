"""What the method table accepts, and what stops the start."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from generated.baxcloud.v1 import options_pb2, project_pb2, room_pb2, video_conversion_pb2
from server.auth.authenticator import KeyAuthoriser
from server.rpc.registry import (
    Registry,
    RegistryError,
    Rule,
    ServiceBinding,
    bindings_of,
    own_rule,
    own_services,
    snake_case,
)

ROOMS = room_pb2.DESCRIPTOR.services_by_name["RoomService"]


@pytest.fixture
def authoriser() -> KeyAuthoriser:
    nobody: Any = None
    return KeyAuthoriser(nobody, admin_token=None)


class Rooms:
    async def get_room(self, request: room_pb2.GetRoomRequest, _ctx: object) -> room_pb2.Room:
        return room_pb2.Room(name=request.name)


def test_methods_are_bound_by_name(authoriser: KeyAuthoriser) -> None:
    rooms = Rooms()
    registry = Registry(own_services({"RoomService": rooms}, authoriser))
    bound = registry.find("baxcloud.v1.RoomService/GetRoom")
    assert bound is not None
    assert bound.handler == rooms.get_room
    missing = registry.find("baxcloud.v1.RoomService/DeleteRoom")
    assert missing is not None
    assert missing.handler is None
    assert registry.find("baxcloud.v1.RoomService/get_room") is None
    assert len(registry.services) == 6


def test_a_service_that_no_proto_defines(authoriser: KeyAuthoriser) -> None:
    with pytest.raises(RegistryError, match="RoomServices"):
        own_services({"RoomServices": Rooms()}, authoriser)


def test_an_attribute_that_is_no_method(authoriser: KeyAuthoriser) -> None:
    class Broken:
        get_room = "a string"

    with pytest.raises(RegistryError, match=r"Broken\.get_room is not a method"):
        Registry(own_services({"RoomService": Broken()}, authoriser))


def test_a_service_twice(authoriser: KeyAuthoriser) -> None:
    binding = ServiceBinding(ROOMS, None, authoriser, own_rule)
    with pytest.raises(RegistryError, match="twice"):
        Registry([binding, binding])


def service(*methods: dict[str, Any]) -> ServiceDescriptor:
    """A service made up for one test."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.add(name="M")
    made = file.service.add(name="S")
    for method in methods:
        made.method.add(input_type=".t.M", output_type=".t.M", **method)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: ServiceDescriptor = pool.FindServiceByName("t.S")
    return found


def test_two_methods_of_one_python_name(authoriser: KeyAuthoriser) -> None:
    both = service({"name": "GetIt"}, {"name": "Get_It"})
    rule = Rule(access=options_pb2.ACCESS_PROJECT)
    with pytest.raises(RegistryError, match=r"both get_it\(\)"):
        Registry([ServiceBinding(both, None, authoriser, lambda _method: rule)])


def test_a_method_without_a_rule(authoriser: KeyAuthoriser) -> None:
    """Nothing is open by omission."""
    with pytest.raises(RegistryError, match="does not say who may call it"):
        Registry([ServiceBinding(service({"name": "Get"}), None, authoriser, own_rule)])


@pytest.mark.parametrize("access", [options_pb2.ACCESS_UNSPECIFIED, 99])
def test_an_unknown_access(authoriser: KeyAuthoriser, access: int) -> None:
    with pytest.raises(RegistryError, match="does not say who may call it"):
        Registry([ServiceBinding(ROOMS, None, authoriser, lambda _method: Rule(access=access))])


def test_project_or_admin_needs_a_project_in_the_request(authoriser: KeyAuthoriser) -> None:
    rule = Rule(access=options_pb2.ACCESS_PROJECT_OR_ADMIN)
    with pytest.raises(RegistryError, match="names no project"):
        Registry([ServiceBinding(ROOMS, None, authoriser, lambda _method: rule)])
    projects = project_pb2.DESCRIPTOR.services_by_name["ProjectService"]
    only = {"GetProject", "GetUsage"}
    Registry(
        [
            ServiceBinding(
                projects,
                None,
                authoriser,
                lambda method: rule if method.name in only else Rule(access=options_pb2.ACCESS_ADMIN),
            )
        ]
    )


def test_streams_in_both_directions(authoriser: KeyAuthoriser) -> None:
    talk = service({"name": "Talk", "client_streaming": True, "server_streaming": True})
    rule = Rule(access=options_pb2.ACCESS_PROJECT)
    with pytest.raises(RegistryError, match="both directions"):
        Registry([ServiceBinding(talk, None, authoriser, lambda _method: rule)])


def test_rules_come_from_the_protos() -> None:
    conversions = video_conversion_pb2.DESCRIPTOR.services_by_name["VideoConversionService"]
    watch = own_rule(conversions.methods_by_name["WatchConversionJob"])
    assert (watch.access, watch.sse_event, watch.creates) == (options_pb2.ACCESS_BAXSTREAM, "job", False)
    classify = own_rule(conversions.methods_by_name["CreateCategorizationJob"])
    assert (classify.creates, classify.rest_status, classify.rest_envelope) == (True, 200, True)
    routes = bindings_of(conversions.methods_by_name["CreateCategorizationJob"])
    assert [(one.verb, one.template, one.body) for one in routes] == [
        ("POST", "/categorize/{input_type}", "*"),
        ("POST", "/video/categorize", "*"),
    ]


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("GetRoom", "get_room"),
        ("CreateLiveKitKey", "create_live_kit_key"),
        ("SetS3Config", "set_s3_config"),
        ("ListHLSFiles", "list_hls_files"),
    ],
)
def test_snake_case(name: str, attribute: str) -> None:
    assert snake_case(name) == attribute


def test_livekits_services_fit_too(authoriser: KeyAuthoriser) -> None:
    """The seam for LiveKit's own descriptors: no rules in their protos, another authoriser."""
    from livekit.protocol import room as livekit_room

    descriptor = livekit_room.DESCRIPTOR.services_by_name["RoomService"]

    class Anyone:
        def check(self, method: object) -> None:
            """Everything may be served."""

    anyone: Any = Anyone()
    registry = Registry([ServiceBinding(descriptor, None, anyone, lambda _method: Rule(access=0))])
    method = registry.find("livekit.RoomService/CreateRoom")
    assert method is not None
    assert method.bindings == ()
    assert method.request_type is livekit_room.CreateRoomRequest
