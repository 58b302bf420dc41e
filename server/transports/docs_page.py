"""`/openapi.json` and the page at `/docs` that shows it; no file of it comes from elsewhere."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.rpc.json_codec import dumps
from server.transports.openapi import describe
from server.transports.rest_routes import RouteTable

_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'"
_FILES: Mapping[str, tuple[str, str]] = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


def description_routes(table: RouteTable) -> list[Route]:
    """The routes; the description is made when first asked for, and never again."""
    made: list[bytes] = []

    async def openapi(request: Request) -> Response:
        if not made:
            made.append(dumps(describe(table)))
        return _answer(request, made[0], "application/json")

    return [Route("/openapi.json", openapi, methods=["GET"])] + [
        Route(path, _file(name, content_type), methods=["GET"])
        for path, (name, content_type) in _FILES.items()
    ]


def _file(name: str, content_type: str) -> Callable[[Request], Awaitable[Response]]:
    body = files("server.transports.pages").joinpath(name).read_bytes()

    async def serve(request: Request) -> Response:
        return _answer(request, body, content_type)

    return serve


def _answer(request: Request, body: bytes, content_type: str) -> Response:
    headers = {
        "content-type": content_type,
        "cache-control": "no-cache",
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "vary": "accept-encoding",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body, 6)
    return Response(body, headers=headers)
