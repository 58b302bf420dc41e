"""gRPC over grpc.aio: every method of the registry as a generic handler, health and reflection beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from server.errors import ServiceError
from server.rpc.dispatch import CallInfo, Dispatcher
from server.rpc.registry import Method, Registry
from server.rpc.status import shown_message, trailing_metadata
from server.transports.exchange import REQUEST_ID_HEADER, request_id_of
from server.transports.twirp import decode_protobuf

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_STATUS = {status.value[0]: status for status in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]


class GrpcServer:
    """A gRPC server of a registry. `start()` gives the port, `stop()` drains."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        *,
        reflection_on: bool = True,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_concurrent_streams: int = 1000,
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_metadata_size", 16 * 1024),
                ("grpc.max_concurrent_streams", max_concurrent_streams),
                ("grpc.so_reuseport", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((_Handlers(registry, dispatcher),))
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._names = tuple(registry.services)
        self._dispatcher = dispatcher
        if reflection_on:
            names = (
                *self._names,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            )
            reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str, *, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on `host:port` (port 0: any free one) and serve; the port. Raises OSError if it is taken."""
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as fault:
            raise OSError(f"cannot listen on {address}: {fault}") from fault
        await self._server.start()
        await self.set_serving(True)
        return port

    async def set_serving(self, serving: bool) -> None:
        """What the health service answers for the server and for each service."""
        status = health_pb2.HealthCheckResponse
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, value)

    async def stop(self, grace_sec: float) -> None:
        """Refuse new calls, tell health checks, let running calls end for at most `grace_sec`."""
        await self._health.enter_graceful_shutdown()
        self._dispatcher.end_streams()
        await self._server.stop(grace_sec)

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a path. Messages pass as bytes: dispatch decodes them once the caller is known."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._by_path = {f"/{method.full_name}": _handler(method, dispatcher) for method in registry}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._by_path.get(details.method)


def _handler(method: Method, dispatcher: Dispatcher) -> grpc.RpcMethodHandler[Any, Any]:
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(partial(_client_stream, method, dispatcher))
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(partial(_server_stream, method, dispatcher))
    return grpc.unary_unary_rpc_method_handler(partial(_unary, method, dispatcher))


async def _unary(method: Method, dispatcher: Dispatcher, request: bytes, context: Context) -> bytes:
    call = await _call(context)
    try:
        reply = await dispatcher.unary(method, partial(decode_protobuf, method.request_type, request), call)
    except ServiceError as error:
        await _abort(context, error)
    return reply.SerializeToString(deterministic=True)


async def _client_stream(
    method: Method, dispatcher: Dispatcher, requests: AsyncIterator[bytes], context: Context
) -> bytes:
    call = await _call(context)

    async def messages() -> AsyncIterator[Message]:
        async for request in requests:
            yield decode_protobuf(method.request_type, request)

    try:
        reply = await dispatcher.client_stream(method, messages(), call)
    except ServiceError as error:
        await _abort(context, error)
    return reply.SerializeToString(deterministic=True)


async def _server_stream(
    method: Method, dispatcher: Dispatcher, request: bytes, context: Context
) -> AsyncIterator[bytes]:
    call = await _call(context)
    decode = partial(decode_protobuf, method.request_type, request)
    replies = dispatcher.server_stream(method, decode, call)
    try:
        async for reply in replies:
            yield reply.SerializeToString(deterministic=True)
    except ServiceError as error:
        await _abort(context, error)
    finally:
        await replies.aclose()  # type: ignore[attr-defined]


async def _call(context: Context) -> CallInfo:
    headers = _headers(tuple(context.invocation_metadata() or ()))
    request_id = request_id_of(headers)
    await context.send_initial_metadata(((REQUEST_ID_HEADER, request_id),))
    return CallInfo("grpc", request_id, headers, context.peer(), context.time_remaining())


def _headers(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in metadata:
        if isinstance(value, str):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _abort(context: Context, error: ServiceError) -> Any:
    status = _STATUS[error.rendering.grpc]
    await context.abort(status, shown_message(error), trailing_metadata(error))
