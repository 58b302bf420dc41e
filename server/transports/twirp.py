"""Twirp over HTTP, version 7: `POST /twirp/{package.Service}/{Method}` in JSON or protobuf.

`twirp.asgi.TwirpASGIApp` carries the request from path to endpoint to answer; overridden is what the trial of the package
showed to differ from the specification or from us: content types, decoding after authentication, streaming bodies under a
limit, and the table of errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from twirp import exceptions
from twirp.asgi import TwirpASGIApp
from twirp.base import Endpoint
from twirp.context import Context
from twirp.server import TwirpServer

from server.errors import Code, ServiceError
from server.rpc.dispatch import Dispatcher
from server.rpc.json_codec import TWIRP_JSON
from server.rpc.registry import Method, Registry
from server.rpc.status import malformed, retry_after, to_service_error, twirp_error, undecodable
from server.transports.exchange import BodyLimits, Exchange, Receive, Scope, Send

PREFIX = "/twirp"
_JSON, _PROTOBUF = "application/json", "application/protobuf"
_log = structlog.get_logger("twirp")

_exchange: ContextVar[Exchange] = ContextVar("twirp_exchange")


class _LoggedContext(Context):  # type: ignore[misc]
    """A context with our logger: without one the package configures structlog anew, and secrets reach the log."""

    def __init__(self) -> None:
        super().__init__(logger=_log)


class RegisteredService(TwirpServer):  # type: ignore[misc]
    """The endpoints of one service, from the registry instead of generated code."""

    def __init__(self, name: str, methods: tuple[Method, ...], dispatcher: Dispatcher) -> None:
        super().__init__(service=None)
        self._prefix = f"{PREFIX}/{name}"
        self._endpoints = {
            method.name: Endpoint(
                service_name=name,
                name=method.name,
                function=_function(method, dispatcher),
                input=method.request_type,
                output=method.reply_type,
            )
            for method in methods
        }


def _function(method: Method, dispatcher: Dispatcher) -> Callable[[Context, Any], Any]:
    async def call(_ctx: Context, decode: Callable[[], ProtoMessage]) -> ProtoMessage:
        if method.client_streaming or method.server_streaming:
            raise ServiceError(
                Code.UNIMPLEMENTED,
                f"{method.full_name} is a stream, which Twirp does not have; use gRPC or REST",
            )
        return await dispatcher.unary(method, decode, _exchange.get().call("twirp"))

    return call


class TwirpApp(TwirpASGIApp):  # type: ignore[misc]
    """All services of a registry as one ASGI application for paths below `/twirp`."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, limits: BodyLimits) -> None:
        super().__init__(max_receive_message_length=limits.message_bytes, ctx_class=_LoggedContext)
        self._limits = limits
        for name, methods in registry.services.items():
            self.add_service(RegisteredService(name, methods, dispatcher))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._limits)
        token = _exchange.set(exchange)
        try:
            await super().__call__(scope, receive, send)
        finally:
            _exchange.reset(token)

    def _get_endpoint(self, path: str) -> Endpoint:
        service, _, method = path.rpartition("/")
        found = self._services.get(service)
        endpoint = found._endpoints.get(method) if found is not None else None
        if endpoint is None:
            raise _bad_route(f"no handler for path {path}", f"POST {path}")
        return endpoint

    def _get_encoder_decoder(self, endpoint: Endpoint, _headers: object) -> tuple[Any, Any]:
        """A decoder that only binds, so that dispatch decodes once it knows the caller."""
        given = _exchange.get().headers.get("content-type", "")
        kind = given.partition(";")[0].strip().lower()
        if kind == _JSON:
            return _json_encode, lambda body: partial(_decode_json, endpoint.input, body)
        if kind == _PROTOBUF:
            return _protobuf_encode, lambda body: partial(decode_protobuf, endpoint.input, body)
        path = _exchange.get().scope["path"]
        raise _bad_route(f"unexpected Content-Type: {given}", f"POST {path}")

    def validate_content_length(self, headers: object) -> None:
        """Nothing: `Exchange.body` does it with the limit of the encoding in use."""

    async def _recv_all(self, _receive: Receive) -> bytes:
        exchange = _exchange.get()
        return await exchange.body(self._limits.message_bytes)

    async def handle_error(self, _ctx: Context, fault: Exception, *_asgi: object) -> None:
        exchange = _exchange.get()
        error = self._as_error(fault, exchange)
        headers = retry_after(error)
        status = 413 if error.reason == "BODY_TOO_LARGE" else error.rendering.twirp_http
        await exchange.respond(status, json.dumps(twirp_error(error)).encode(), _JSON, headers)

    async def _respond(
        self, *_args: object, send: Send, status: int, headers: dict[str, str], body_bytes: bytes
    ) -> None:
        await _exchange.get().respond(status, body_bytes, headers["Content-Type"])

    def _as_error(self, fault: Exception, exchange: Exchange) -> ServiceError:
        if isinstance(fault, exceptions.TwirpServerException):
            return ServiceError(Code(fault.code.value), fault.message, meta=fault.meta)
        if isinstance(fault, UnicodeDecodeError):
            return malformed("the headers are not text")
        if not isinstance(fault, ServiceError):
            _log.error("twirp request failed", request_id=exchange.request_id, exc_info=fault)
        return to_service_error(fault, exchange.request_id)


def decode_protobuf(kind: type[ProtoMessage], body: bytes) -> ProtoMessage:
    """Parse binary protobuf; raises malformed."""
    message = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as fault:
        raise undecodable(fault) from None
    return message


def _decode_json(kind: type[ProtoMessage], body: bytes) -> ProtoMessage:
    message = kind()
    TWIRP_JSON.load(message, body)
    return message


def _json_encode(reply: ProtoMessage) -> tuple[bytes, dict[str, str]]:
    return TWIRP_JSON.dump(reply), {"Content-Type": _JSON}


def _protobuf_encode(reply: ProtoMessage) -> tuple[bytes, dict[str, str]]:
    return reply.SerializeToString(deterministic=True), {"Content-Type": _PROTOBUF}


def _bad_route(message: str, route: str) -> ServiceError:
    return ServiceError(Code.BAD_ROUTE, message, meta={"twirp_invalid_route": route})
