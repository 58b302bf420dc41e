"""`/healthz` and `/metrics`: what every process that listens shows of itself, without credentials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/healthz` answers: 200 if `ready`, else 503; `details` is shown either way and holds no secrets."""

    ready: bool
    details: Mapping[str, Any] = field(default_factory=dict)


Probe = Callable[[], Awaitable[Readiness]]
# The text of `/metrics` and its content type.
Scrape = Callable[[], Awaitable[tuple[bytes, str]]]


def health_app(readiness: Probe, scrape: Scrape) -> Starlette:
    """An application of nothing but these pages, for a process that takes no calls."""
    return Starlette(routes=health_routes(readiness, scrape))


def health_routes(readiness: Probe, scrape: Scrape) -> list[Route]:
    async def healthz(_request: Request) -> Response:
        state = await readiness()
        body = {"status": "ok" if state.ready else "starting", **state.details}
        return JSONResponse(
            body, status_code=200 if state.ready else 503, headers={"cache-control": "no-store"}
        )

    async def show_metrics(_request: Request) -> Response:
        body, content_type = await scrape()
        return Response(body, headers={"content-type": content_type})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/v1/health", healthz, methods=["GET"]),
        Route("/metrics", show_metrics, methods=["GET"]),
    ]
