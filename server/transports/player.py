"""The player page: static files of our own and hls.js as it was bundled at set-up."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Streams may lie on any bucket or CDN; scripts may not.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; worker-src blob:; img-src 'self' data:; "
    "media-src * blob:; connect-src *; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def player_routes(web: Path) -> list[BaseRoute]:
    """`/player/?src=<master playlist>`; `web` holds `player/` and `vendor/`."""

    async def to_folder(_: object) -> RedirectResponse:
        return RedirectResponse("/player/")

    return [
        Route("/player", to_folder),
        Mount("/player/vendor", _Guarded(StaticFiles(directory=web / "vendor", check_dir=False))),
        Mount("/player", _Guarded(StaticFiles(directory=web / "player", html=True))),
    ]


class _Guarded:
    """Adds the page's security headers to whatever the app inside answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, guarded)
