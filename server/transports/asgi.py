"""The HTTP side as one ASGI application: REST, Twirp, health, metrics, the API description and whatever else is given."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from server.errors import Code, ServiceError
from server.rpc.dispatch import Dispatcher
from server.rpc.registry import Registry
from server.rpc.status import rest_error
from server.transports.docs_page import description_routes
from server.transports.exchange import BodyLimits, Exchange, Receive, Scope, Send, request_id_of
from server.transports.health import Probe, Scrape, health_routes
from server.transports.livekit_app import LiveKitApp
from server.transports.rest import RestApp, respond_error
from server.transports.twirp import PREFIX, TwirpApp

MAX_HEADER_BYTES = 16 * 1024
_log = structlog.get_logger("http")


class HttpApp:
    """Give it to uvicorn. LiveKit's routes, REST and Twirp are answered directly, everything else by Starlette."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        *,
        scrape: Scrape,
        readiness: Probe,
        routes: Sequence[BaseRoute] = (),
        limits: BodyLimits | None = None,
        livekit: LiveKitApp | None = None,
    ) -> None:
        self._limits = limits or BodyLimits()
        self._livekit = livekit
        self._rest = RestApp(registry, dispatcher)
        self._twirp = TwirpApp(registry, dispatcher, self._limits)
        self._pages = Starlette(
            routes=[*health_routes(readiness, scrape), *description_routes(self._rest.table), *routes],
            exception_handlers={404: _not_found, 405: _not_allowed, Exception: _failed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            self._livekit is not None
            and scope["type"] in ("http", "websocket")
            and self._livekit.takes(scope)
        ):
            await self._livekit(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            exchange = Exchange({**scope, "headers": []}, receive, send, self._limits)
            await respond_error(exchange, _headers_too_large())
            return
        path: str = scope["path"]
        if path.startswith(PREFIX + "/"):
            await self._twirp(scope, receive, send)
            return
        if not await self._rest.serve(Exchange(scope, receive, send, self._limits)):
            await self._pages(scope, receive, send)


def _headers_too_large() -> ServiceError:
    return ServiceError(
        Code.RESOURCE_EXHAUSTED, "the request headers are too large", reason="HEADERS_TOO_LARGE"
    )


async def _not_found(_request: Request, _fault: Exception) -> Response:
    return _error(ServiceError(Code.NOT_FOUND, "there is no such route"))


async def _not_allowed(_request: Request, fault: Exception) -> Response:
    error = ServiceError(
        Code.UNIMPLEMENTED, "this route does not take this method", reason="METHOD_NOT_ALLOWED"
    )
    headers = getattr(fault, "headers", None) or {}
    return JSONResponse(rest_error(error), status_code=405, headers=headers)


async def _failed(request: Request, fault: Exception) -> Response:
    request_id = request_id_of(dict(request.headers))
    _log.error("http request failed", path=request.url.path, request_id=request_id, exc_info=fault)
    error = ServiceError(Code.INTERNAL, "internal error", meta={"requestId": request_id})
    return _error(error)


def _error(error: ServiceError) -> Response:
    return JSONResponse(rest_error(error), status_code=error.rest_status)
