"""The player and the join page: static files of our own, and their scripts as they were bundled at set-up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ServiceError
from server.ports.livekit import LiveKitSource

Policy = Callable[[], Awaitable[str]]

_COMMON = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
# Streams may lie on any bucket or CDN; scripts may not.
_PLAYER = (
    f"{_COMMON}; worker-src blob:; img-src 'self' data:; media-src * blob:; connect-src *; form-action 'self'"
)
_JOIN = f"{_COMMON}; worker-src blob:; img-src data:; media-src blob: data:; form-action 'none'"
# LiveKit Cloud hands clients on to the hosts of its regions.
_CLOUD = ".livekit.cloud"


def page_routes(web: Path, livekit: LiveKitSource) -> list[BaseRoute]:
    """`/player/?src=<master playlist>` and `/join/#url=<LiveKit>&token=<token>`; `web` holds them and `vendor/`.

    The join page connects to this server and the LiveKit behind it alone: a forged link leads to nobody else's rooms.
    """

    async def player_policy() -> str:
        return _PLAYER

    async def join_policy() -> str:
        return f"{_JOIN}; connect-src 'self'{await _addresses(livekit)}"

    return [*_page("player", web, player_policy), *_page("join", web, join_policy)]


def _page(name: str, web: Path, policy: Policy) -> list[BaseRoute]:
    async def to_folder(_: object) -> RedirectResponse:
        return RedirectResponse(f"/{name}/")

    return [
        Route(f"/{name}", to_folder),
        Mount(f"/{name}/vendor", _Guarded(StaticFiles(directory=web / "vendor", check_dir=False), policy)),
        Mount(f"/{name}", _Guarded(StaticFiles(directory=web / name, html=True), policy)),
    ]


async def _addresses(livekit: LiveKitSource) -> str:
    """LiveKit's websocket address and the same over HTTP, which the SDK asks why it was refused."""
    try:
        public = urlsplit((await livekit.address()).public_url)
    except ServiceError:
        return ""
    secure = public.scheme in ("wss", "https")
    hosts = [public.netloc, *([f"*{_CLOUD}"] if (public.hostname or "").endswith(_CLOUD) else [])]
    schemes = ("wss", "https") if secure else ("ws", "http")
    return "".join(f" {scheme}://{host}" for host in hosts for scheme in schemes)


class _Guarded:
    """Adds the page's security headers to whatever the app inside answers."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = (
            (b"content-security-policy", (await self._policy()).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        )

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, guarded)
