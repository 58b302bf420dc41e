"""The gRPC server's own parts: generated stubs, health, reflection, shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from adapters.db.unit_of_work import SqlDatabase
from generated.baxcloud.v1 import room_pb2, video_conversion_pb2
from generated.baxcloud.v1.room_pb2_grpc import RoomServiceStub
from generated.baxcloud.v1.video_conversion_pb2_grpc import VideoConversionServiceStub
from server.transports.grpc_server import GrpcServer
from tests.transport.surface import Surface, headers_for, running_surface


async def test_generated_stubs(surface: Surface) -> None:
    surface.recorder.answers["GetRoom"] = lambda request, _c: room_pb2.Room(name=request.name)
    stub: Any = RoomServiceStub(surface.channel)
    room = await stub.GetRoom(room_pb2.GetRoomRequest(name="é/x"), metadata=tuple(headers_for().items()))
    assert room.name == "é/x"
    watch: Any = VideoConversionServiceStub(surface.channel)
    request = video_conversion_pb2.WatchConversionJobRequest(job_id="cm1")
    jobs = [job async for job in watch.WatchConversionJob(request, metadata=tuple(headers_for().items()))]
    assert len(jobs) == 1


async def test_health_and_shutdown(sqlite_database: SqlDatabase) -> None:
    """The standard service: overall and per service; not serving while draining."""
    async with running_surface(sqlite_database) as surface:
        stub: Any = health_pb2_grpc.HealthStub(surface.channel)
        for service in ("", "baxcloud.v1.RoomService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service="nope"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        await surface.server.set_serving(False)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_running_call_ends_before_the_server_does(sqlite_database: SqlDatabase) -> None:
    async with running_surface(sqlite_database) as surface:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow(_request: object, _ctx: object) -> room_pb2.Room:
            begun.set()
            await go.wait()
            return room_pb2.Room(name="done")

        surface.recorder.answers["GetRoom"] = slow
        method = surface.method("GetRoom")
        call = asyncio.create_task(surface.grpc(method, room_pb2.GetRoomRequest(name="a"), headers_for()))
        await asyncio.wait_for(begun.wait(), 5)
        stopping = asyncio.create_task(surface.server.stop(10))
        await asyncio.sleep(0)
        go.set()
        assert (await call).reply == {"name": "done"}
        await asyncio.wait_for(stopping, 5)


async def test_reflection(surface: Surface) -> None:
    """grpcurl and friends find the services."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(surface.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = [answer async for answer in stub.ServerReflectionInfo(requests)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names >= {*surface.registry.services, "grpc.health.v1.Health"}


async def test_reflection_can_be_off(surface: Surface) -> None:
    server = GrpcServer(surface.registry, surface.dispatcher, reflection_on=False)
    port = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            [answer async for answer in stub.ServerReflectionInfo(requests)]
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_a_taken_port_is_told(surface: Surface) -> None:
    server = GrpcServer(surface.registry, surface.dispatcher)
    with pytest.raises(OSError, match="cannot listen on"):
        await server.start(surface.grpc_address)


async def test_unknown_methods(surface: Surface) -> None:
    for path in ("/baxcloud.v1.RoomService/Nope", "/nope.Nope/Nope"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await surface.channel.unary_unary(path)(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
