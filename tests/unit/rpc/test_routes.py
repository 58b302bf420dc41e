"""Templates of `google.api.http`: what is understood, and what stops the start."""

from __future__ import annotations

from typing import Any

import pytest

from generated.baxcloud.v1 import options_pb2, room_pb2, video_conversion_pb2
from server.rpc.registry import Binding, Method, Registry, RegistryError, Rule, ServiceBinding
from server.transports.rest_routes import Match, RouteTable, route_of


class Anyone:
    def check(self, method: object) -> None:
        """Everything may be served."""


def registry() -> Registry:
    rule = Rule(access=options_pb2.ACCESS_PROJECT, sse_event="e")
    anyone: Any = Anyone()
    files = (room_pb2.DESCRIPTOR, video_conversion_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    return Registry([ServiceBinding(service, None, anyone, lambda _method: rule) for service in services])


def method(name: str) -> Method:
    return next(one for one in registry() if one.name == name)


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ("/v1/{nope}", ""),
        ("/v1/{name.nope}", ""),
        ("/v1/{name=**}", ""),
        ("/v1/{name=a/*}", ""),
        ("/v1/*", ""),
        ("/v1/{name}:close", ""),
        ("/v1//x", ""),
        ("/v1/{name}", "nope"),
    ],
)
def test_what_is_not_supported_stops_the_start(template: str, body: str) -> None:
    with pytest.raises(RegistryError):
        route_of(method("UpdateRoomMetadata"), Binding("POST", template, body))


def test_a_stream_of_requests_has_no_json_route() -> None:
    with pytest.raises(RegistryError, match="stream"):
        route_of(method("UploadVideo"), Binding("POST", "/x", "*"))


def test_nested_variables() -> None:
    """`{a.b}` and `{a=*}` name fields as `{a}` does."""
    table = RouteTable([])
    table.add(
        route_of(method("CreateConversionJob"), Binding("PUT", "/c/{s3_config.bucket}/{input_url=*}", "*"))
    )
    found = table.find("PUT", b"/c/my%20bucket/x%2Fy")
    assert isinstance(found, Match)
    assert found.route.variables == ("s3_config.bucket", "input_url")
    assert found.values == ("my bucket", "x/y")


def test_one_route_for_two_methods() -> None:
    table = RouteTable([])
    table.add(route_of(method("GetRoom"), Binding("GET", "/r/{name}", "")))
    with pytest.raises(RegistryError, match="is both"):
        table.add(route_of(method("DeleteRoom"), Binding("GET", "/r/{name}", "")))


@pytest.mark.parametrize("literal_first", [True, False])
def test_order_of_declaration_does_not_matter(literal_first: bool) -> None:
    routes = [
        route_of(method("ListRooms"), Binding("GET", "/r/active", "")),
        route_of(method("GetRoom"), Binding("GET", "/r/{name}", "")),
        route_of(method("DeleteRoom"), Binding("GET", "/r/{name}/x", "")),
    ]
    table = RouteTable([])
    for route in routes if literal_first else reversed(routes):
        table.add(route)
    for path, name in ((b"/r/active", "ListRooms"), (b"/r/a", "GetRoom"), (b"/r/active/x", "DeleteRoom")):
        found = table.find("GET", path)
        assert isinstance(found, Match)
        assert found.route.method.name == name
    assert table.find("GET", b"/r/") is None
    assert table.find("PUT", b"/r/active") == ("GET",)
    assert table.find("GET", b"/r//x") is None
