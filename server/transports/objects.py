"""Serves the data directory: `GET`/`HEAD /o/{capability}/{key}` with ranges, validators and CORS (design section 13)."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Protocol

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from server.domain.objects import PLAYLIST_TYPE, Refusal, cache_control, content_type, is_growing

_COMMON = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "accept-ranges, content-length, content-range, etag",
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
    # Objects share an origin with the API: nothing in them may run there as a page.
    "content-security-policy": "default-src 'none'; sandbox",
}
_PREFLIGHT = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD",
    "access-control-allow-headers": "range, if-range, if-none-match",
    "access-control-max-age": "86400",
}


class ServedObjects(Protocol):
    """The part of the data directory's store that serving needs."""

    async def resolve(self, capability: str, key: str) -> Path | Refusal:
        """The file behind an address, or why it is not served."""
        ...


def object_routes(objects: ServedObjects) -> list[Route]:
    """The routes of the data directory; no key is asked for, the capability in the path is the right to read."""

    async def serve(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_PREFLIGHT)
        found = await objects.resolve(request.path_params["capability"], request.path_params["key"])
        if isinstance(found, Refusal):
            return _refused(found)
        try:
            return await _answer(request, found)
        except FileNotFoundError:
            return _refused(Refusal.MISSING)

    return [Route("/o/{capability}/{key:path}", serve, methods=["GET", "HEAD", "OPTIONS"], name="object")]


def _refused(reason: Refusal) -> Response:
    status, code, message = {
        Refusal.MISSING: (404, "NOT_FOUND", "object not found"),
        Refusal.EXPIRED: (403, "PERMISSION_DENIED", "this address has expired"),
    }[reason]
    body = {"success": False, "error": {"code": code, "message": message}}
    return JSONResponse(body, status_code=status, headers=_COMMON | {"cache-control": "no-store"})


async def _answer(request: Request, path: Path) -> Response:
    media_type = content_type(path.name)
    response: Response
    if media_type == PLAYLIST_TYPE:
        # A playlist is replaced while it grows: one read, or length and body could come from two versions.
        data = await asyncio.to_thread(path.read_bytes)
        headers = _COMMON | {
            "cache-control": cache_control(media_type, growing=is_growing(data), immutable=True),
            "etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        }
        response = Response(data, headers=headers, media_type=media_type)
    else:
        stat_result = await asyncio.to_thread(path.stat)
        headers = _COMMON | {"cache-control": cache_control(media_type, immutable=True)}
        response = FileResponse(path, headers=headers, media_type=media_type, stat_result=stat_result)
    if _unchanged(request, response.headers["etag"]):
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(status_code=304, headers=kept)
    return response


def _unchanged(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known.split(","))
