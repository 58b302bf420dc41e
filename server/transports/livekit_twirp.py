"""`POST /twirp/livekit.{Service}/{Method}` exactly as LiveKit serves it, where that differs from our own Twirp.

Order: token (401 as plain text), service (plain 404), verb, method and content type (`bad_route`), body (`malformed`),
grant (401 as Twirp JSON), then the call (livekit-surface.md 1.1, 1.2, 15).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import structlog
from google.protobuf.message import Message

from server.auth.livekit_tokens import LiveKitTokens, TokenRefused, bearer
from server.errors import Code, ServiceError, unauthenticated
from server.rpc.dispatch import Dispatcher
from server.rpc.json_codec import TWIRP_JSON
from server.rpc.registry import Method, Registry
from server.rpc.status import malformed, retry_after, to_service_error, twirp_error
from server.transports.exchange import Exchange
from server.transports.livekit_http import (
    access_token_of,
    answer_not_found,
    answer_preflight,
    answer_text,
    cors_headers,
    is_preflight,
    path_of,
)
from server.transports.twirp import decode_protobuf

PREFIX = "/twirp/livekit."
MAX_BODY_BYTES = 10 * 1024 * 1024
# Decoding comes before the grant, so this is all that we decode for nobody.
MAX_ANONYMOUS_BYTES = 256 * 1024
_log = structlog.get_logger("twirp")
_JSON, _PROTOBUF = "application/json", "application/protobuf"


class LiveKitTwirp:
    """The `livekit.*` services of a registry."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, tokens: LiveKitTokens) -> None:
        self._dispatcher = dispatcher
        self._tokens = tokens
        self._services = {
            name: {method.name: method for method in methods}
            for name, methods in registry.services.items()
            if name.startswith("livekit.")
        }

    async def serve(self, exchange: Exchange) -> None:
        """Answer; never raises what a caller could cause."""
        if is_preflight(exchange):
            await answer_preflight(exchange)
            return
        try:
            await self._serve(exchange)
        except TokenRefused as refusal:
            await answer_text(exchange, 401, refusal.message)
        except ServiceError as error:
            await _answer_error(exchange, error)
        except Exception as fault:
            if exchange.started:
                raise
            _log.error("twirp request failed", request_id=exchange.request_id, exc_info=fault)
            await _answer_error(exchange, to_service_error(fault, exchange.request_id))

    async def _serve(self, exchange: Exchange) -> None:
        token = bearer(exchange.headers, access_token_of(exchange.scope))
        caller = await self._tokens.verify(token)
        path = path_of(exchange.scope)
        service, slash, name = path.removeprefix("/twirp/").partition("/")
        methods = self._services.get(service) if slash else None
        if methods is None:
            await answer_not_found(exchange)
            return
        method = _routed(exchange, path, methods.get(name))
        kind = _content_type(exchange, path)
        body = await _body(exchange, known=caller.project_id is not None)
        call = exchange.call("twirp")
        if token and not call.headers.get("authorization"):
            call = replace(call, headers={**call.headers, "authorization": f"Bearer {token}"})
        decode = partial(_decode_json if kind == _JSON else decode_protobuf, method.request_type, body)
        reply = await self._dispatcher.unary(method, decode, call)
        answer = TWIRP_JSON.dump(reply) if kind == _JSON else reply.SerializeToString()
        await exchange.respond(200, answer, kind, cors_headers(exchange.headers))


def _routed(exchange: Exchange, path: str, method: Method | None) -> Method:
    verb = exchange.scope["method"]
    if verb != "POST":
        raise _bad_route(f'unsupported method "{verb}" (only POST is allowed)', verb, path)
    if method is None:
        raise _bad_route(f'no handler for path "{path}"', verb, path)
    return method


def _content_type(exchange: Exchange, path: str) -> str:
    given = exchange.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind not in (_JSON, _PROTOBUF):
        raise _bad_route(f'unexpected Content-Type: "{given}"', "POST", path)
    return kind


async def _body(exchange: Exchange, *, known: bool) -> bytes:
    try:
        return await exchange.body(MAX_BODY_BYTES if known else MAX_ANONYMOUS_BYTES)
    except ServiceError as error:
        if not known and error.reason == "BODY_TOO_LARGE":
            raise unauthenticated("permissions denied") from None
        raise


def _bad_route(message: str, verb: str, path: str) -> ServiceError:
    return ServiceError(Code.BAD_ROUTE, message, meta={"twirp_invalid_route": f"{verb} {path}"})


def _decode_json(kind: type[Message], body: bytes) -> Message:
    message = kind()
    try:
        TWIRP_JSON.load(message, body)
    except ServiceError as error:
        # LiveKit says no more about any of them; where a field is at fault we name it.
        said = f": {error.message}" if error.field else ""
        raise malformed(f"the json request could not be decoded{said}") from None
    return message


async def _answer_error(exchange: Exchange, error: ServiceError) -> None:
    if error.reason == "BODY_TOO_LARGE":
        await answer_text(exchange, 413, "request body too large")
        return
    body = twirp_error(error)
    # LiveKit's Go client knows this spelling only.
    body["code"] = {"dataloss": "data_loss"}.get(body["code"], body["code"])
    headers = {**cors_headers(exchange.headers), **retry_after(error)}
    await exchange.respond(error.rendering.twirp_http, json.dumps(body).encode(), _JSON, headers)
