"""REST: JSON over the routes of `google.api.http`, forms and server-sent events, all through dispatch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import structlog
from google.protobuf.message import Message

from server.context import SignedRequest
from server.errors import Code, ServiceError
from server.rpc.descriptors import descriptor_of
from server.rpc.dispatch import Dispatcher
from server.rpc.json_codec import REST_JSON, dumps, loads
from server.rpc.registry import Method, Registry, RegistryError
from server.rpc.status import problem, rest_error, retry_after, to_service_error
from server.rpc.validation import camel_case
from server.transports.exchange import Exchange
from server.transports.multipart import FORM_ROUTES, FormStream, check_form, form_route
from server.transports.rest_routes import Match, RouteTable, fill_path, fill_query, no_route
from server.transports.sse import serve_events

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
_log = structlog.get_logger("rest")


class RestApp:
    """All routes of a registry."""

    def __init__(
        self, registry: Registry, dispatcher: Dispatcher, *, sse_keep_alive_sec: float = 15.0
    ) -> None:
        self._dispatcher = dispatcher
        self._sse_keep_alive_sec = sse_keep_alive_sec
        self.table = rest_table(registry)

    async def serve(self, exchange: Exchange) -> bool:
        """Answer the request, or its error; False, and nothing sent, if the path is none of ours."""
        method: Method | None = None
        try:
            match = self.table.find(exchange.scope["method"], raw_path_of(exchange))
            if match is None:
                return False
            if isinstance(match, tuple):
                await _respond_not_allowed(exchange, match)
                return True
            method = match.route.method
            await self._serve(exchange, match)
        except Exception as fault:  # noqa: BLE001 - the last place where a fault can become an answer
            if not isinstance(fault, ServiceError):
                _log.error("rest request failed", request_id=exchange.request_id, exc_info=fault)
            error = to_service_error(fault, exchange.request_id)
            if not exchange.started:
                await respond_error(
                    exchange, error, as_problem=method is not None and method.rule.rest_problem
                )
        return True

    async def _serve(self, exchange: Exchange, match: Match) -> None:
        route, method = match.route, match.route.method
        call = exchange.call("rest")
        if route.form_file:
            form = FormStream(exchange, method, route.form_file, check_form(exchange, route.form_file))
            reply = await self._dispatcher.client_stream(method, form.messages(), call)
        else:
            body = await _body(exchange, match)
            call = replace(call, signed=_signed(exchange, body))
            decode = partial(_decode, match, body, exchange.scope["query_string"])
            if method.server_streaming:
                if exchange.scope["method"] == "HEAD":
                    raise no_route()
                replies = self._dispatcher.server_stream(method, decode, call)
                await serve_events(exchange, replies, method.rule.sse_event, self._sse_keep_alive_sec)
                return
            reply = await self._dispatcher.unary(method, decode, call)
        await _respond(exchange, method, reply, existing=call.notes.existing)


def rest_table(registry: Registry) -> RouteTable:
    """The routes of all methods and forms; raises RegistryError for what cannot be served."""
    table = RouteTable(registry)
    for declared in FORM_ROUTES:
        method = registry.find(declared.method)
        if method is not None:
            table.add(form_route(declared, method))
    for route in table.routes:
        if route.method.server_streaming and not route.method.rule.sse_event:
            raise RegistryError(f"{route.method.full_name} streams but names no event")
    return table


def raw_path_of(exchange: Exchange) -> bytes:
    """The path as sent, still percent-encoded: an encoded slash in a room's name is no separator."""
    raw: bytes | None = exchange.scope.get("raw_path")
    return raw.partition(b"?")[0] if raw is not None else exchange.scope["path"].encode("utf-8", "replace")


async def respond_error(exchange: Exchange, error: ServiceError, *, as_problem: bool = False) -> None:
    """The error in the shape of its route family (contract B-31)."""
    status = error.rest_status
    headers = retry_after(error)
    if error.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if as_problem:
        await exchange.respond(status, dumps(problem(error, status)), PROBLEM_TYPE, headers)
    else:
        await exchange.respond(status, dumps(rest_error(error)), JSON_TYPE, headers)


def _signed(exchange: Exchange, body: bytes) -> SignedRequest:
    query = exchange.scope["query_string"]
    url = raw_path_of(exchange) + (b"?" + query if query else b"")
    return SignedRequest(exchange.scope["method"], url.decode("utf-8", "surrogateescape"), body)


async def _body(exchange: Exchange, match: Match) -> bytes:
    if not match.route.body:
        return b""
    body = await exchange.body(exchange.limits.json_bytes)
    kind = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind not in ("", JSON_TYPE) and not kind.endswith("+json"):
        raise ServiceError(
            Code.INVALID_ARGUMENT,
            "the request body must be application/json",
            reason="UNSUPPORTED_MEDIA_TYPE",
        )
    return body


def _decode(match: Match, body: bytes, query: bytes) -> Message:
    route = match.route
    request = route.method.request_type()
    if route.body == "*":
        tree = loads(body) if body.strip() else {}
        if isinstance(tree, dict):
            # What the path says is not the body's to say, not even wrongly.
            for name in route.variables:
                tree.pop(name, None)
                tree.pop(camel_case(name), None)
        REST_JSON.decode(request, tree)
    else:
        if route.body and body.strip():
            REST_JSON.decode_field(request, descriptor_of(request).fields_by_name[route.body], loads(body))
        fill_query(request, query, skip=(*route.variables, route.body))
    fill_path(request, match)
    return request


async def _respond(exchange: Exchange, method: Method, reply: Message, *, existing: bool) -> None:
    rule = method.rule
    if descriptor_of(reply).full_name == "google.protobuf.Empty" and not rule.rest_status:
        await exchange.respond(204, b"", None)
        return
    tree = REST_JSON.encode(reply)
    body = dumps({"success": True, "data": tree} if rule.rest_envelope else tree)
    status = rule.rest_status or (201 if rule.creates else 200)
    await exchange.respond(200 if existing else status, body, JSON_TYPE)


async def _respond_not_allowed(exchange: Exchange, verbs: tuple[str, ...]) -> None:
    error = ServiceError(
        Code.UNIMPLEMENTED, "this route does not take this method", reason="METHOD_NOT_ALLOWED"
    )
    await exchange.respond(405, dumps(rest_error(error)), JSON_TYPE, {"allow": ", ".join(verbs)})
