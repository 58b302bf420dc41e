"""Dispatch where the database lets it down in the middle of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from adapters.db.unit_of_work import SqlDatabase
from generated.baxcloud.v1 import room_pb2
from server.clock import SystemClock
from server.context import CallContext, Caller, CallerKind
from server.errors import Code, ServiceError, not_found, unavailable
from server.ids import ProjectId
from server.observability.metrics import RpcMetrics
from server.rpc.dispatch import CallInfo, Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.registry import Method, Registry, own_services

REQUEST = room_pb2.CreateRoomRequest(name="a")
CALL = CallInfo("rest", "req_1", {"idempotency-key": "k"})


class Anyone:
    """Lets everybody in as the same key."""

    def check(self, method: Method) -> None:
        """Everything may be served."""

    async def authenticate(self, _method: Method, _headers: object, _signed: object) -> Caller:
        return Caller(CallerKind.API_KEY, ProjectId("cl_a"), "key_1")

    def authorise(self, _method: Method, _caller: Caller, _request: object) -> None:
        """Nothing more is asked."""


class Failing:
    """The database of the test, which a handler can take away."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self.away = False

    def begin(self) -> Any:
        if self.away:
            raise unavailable("the database is away")
        return self._database.begin()

    def read(self) -> Any:
        return self._database.read()


class Rooms:
    """Creates rooms; on the way the database goes away, and the call may fail."""

    def __init__(self, database: Failing) -> None:
        self._database = database
        self.fault: Exception | None = None
        self.made = 0

    async def create_room(self, request: room_pb2.CreateRoomRequest, _ctx: CallContext) -> room_pb2.Room:
        self._database.away = True
        if self.fault is not None:
            raise self.fault
        self.made += 1
        return room_pb2.Room(name=request.name)


@pytest.fixture
async def parts(database: SqlDatabase) -> AsyncIterator[tuple[Dispatcher, Method, Rooms, Failing]]:
    failing = Failing(database)
    rooms = Rooms(failing)
    registry = Registry(own_services({"RoomService": rooms}, Anyone()))
    method = registry.find("baxcloud.v1.RoomService/CreateRoom")
    assert method is not None
    dispatcher = Dispatcher(
        idempotency=IdempotencyKeys(failing, SystemClock()),
        clock=SystemClock(),
        metrics=RpcMetrics(CollectorRegistry()),
    )
    yield dispatcher, method, rooms, failing
    await dispatcher.aclose()


Parts = tuple[Dispatcher, Method, Rooms, Failing]


async def test_what_was_made_is_answered(parts: Parts) -> None:
    """The reply could not be stored: the caller has it all the same, and no repetition makes a second one."""
    dispatcher, method, rooms, failing = parts
    with capture_logs() as logs:
        reply = await dispatcher.unary(method, lambda: REQUEST, CALL)
    assert reply == room_pb2.Room(name="a")
    assert [entry["event"] for entry in logs] == ["reply not stored", "rpc"]
    failing.away = False
    with pytest.raises(ServiceError) as refused:
        await dispatcher.unary(method, lambda: REQUEST, CALL)
    assert refused.value.reason == "IDEMPOTENCY_IN_PROGRESS"
    assert rooms.made == 1


async def test_the_handlers_own_error_is_told(parts: Parts) -> None:
    dispatcher, method, rooms, _ = parts
    rooms.fault = not_found("room", "a")
    with capture_logs() as logs, pytest.raises(ServiceError) as refused:
        await dispatcher.unary(method, lambda: REQUEST, CALL)
    assert (refused.value.code, refused.value.message) == (Code.NOT_FOUND, "room a not found")
    assert [entry["event"] for entry in logs] == ["key not freed", "rpc"]


async def test_a_key_that_cannot_be_reserved_stops_the_call(parts: Parts) -> None:
    dispatcher, method, rooms, failing = parts
    failing.away = True
    with pytest.raises(ServiceError) as refused:
        await dispatcher.unary(method, lambda: REQUEST, CALL)
    assert refused.value.code is Code.UNAVAILABLE
    assert rooms.made == 0
