"""How LiveKit's HTTP side answers, whatever the route: CORS, plain-text refusals, tokens (livekit-surface.md 1.1, 1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from server.transports.exchange import Exchange, Scope

TEXT = "text/plain; charset=utf-8"
_NOT_FOUND = b"404 page not found\n"
_METHODS = frozenset({"OPTIONS", "HEAD", "GET", "POST", "PATCH", "DELETE"})


def path_of(scope: Scope) -> str:
    """The path with one leading slash too many taken off, which some SDKs send."""
    path: str = scope["path"]
    return path[1:] if path.startswith("//") else path


def access_token_of(scope: Scope) -> str:
    """The query parameter that browsers and websockets use instead of the header."""
    query = scope.get("query_string", b"")
    if b"access_token" not in query:
        return ""
    return next((value for name, value in parse_qsl(query.decode("latin-1")) if name == "access_token"), "")


def is_preflight(exchange: Exchange) -> bool:
    return exchange.scope["method"] == "OPTIONS" and bool(
        exchange.headers.get("access-control-request-method")
    )


async def answer_preflight(exchange: Exchange) -> None:
    """Any origin and any header; tokens, not origins, are what protects these routes."""
    asked = exchange.headers
    headers = {"vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    method = asked["access-control-request-method"]
    if asked.get("origin") and method.upper() in _METHODS:
        headers["access-control-allow-origin"] = asked["origin"]
        headers["access-control-allow-methods"] = method
        if asked.get("access-control-request-headers"):
            headers["access-control-allow-headers"] = asked["access-control-request-headers"]
        headers["access-control-max-age"] = "86400"
    await exchange.respond(204, b"", None, headers)


def cors_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What every answer carries."""
    origin = headers.get("origin")
    if not origin:
        return {"vary": "Origin"}
    return {"vary": "Origin", "access-control-allow-origin": origin, "access-control-expose-headers": "*"}


async def answer_text(exchange: Exchange, status: int, text: str) -> None:
    await exchange.respond(status, text.encode(), TEXT, cors_headers(exchange.headers))


async def answer_not_found(exchange: Exchange) -> None:
    headers = {**cors_headers(exchange.headers), "x-content-type-options": "nosniff"}
    await exchange.respond(404, _NOT_FOUND, TEXT, headers)
