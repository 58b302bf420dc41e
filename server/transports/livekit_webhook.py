"""`POST /livekit/webhook`: where LiveKit tells what happens in its rooms (contract C.2 row 52)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.errors import Code, ServiceError
from server.rpc.status import rest_error

PATH = "/livekit/webhook"
# Metadata (512 KiB) and attributes (64 KiB) of a room and a participant, twice over for their escapes.
MAX_BODY_BYTES = 2 * 1024 * 1024
BODY_TIMEOUT_SEC = 10.0


class WebhookIntake(Protocol):
    async def accept(self, authorization: str, body: bytes) -> None:
        """Returns once the event is stored. Raise ServiceError."""
        ...


def livekit_webhook_routes(intake: WebhookIntake) -> list[Route]:
    """LiveKit sends again what is answered with 5xx, 429 or not at all, and gives up after any other 4xx."""

    async def receive(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SEC):
                body = await _read(request)
            await intake.accept(request.headers.get("authorization", ""), body)
        except TimeoutError:
            return _refused(
                ServiceError(
                    Code.DEADLINE_EXCEEDED, "the body did not arrive in time", reason="BODY_TOO_SLOW"
                )
            )
        except ClientDisconnect:
            return Response(status_code=400)
        except ServiceError as error:
            return _refused(error)
        return Response(status_code=200)

    return [Route(PATH, receive, methods=["POST"], name="livekit-webhook")]


async def _read(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ServiceError(
                Code.RESOURCE_EXHAUSTED,
                f"the body must not be larger than {MAX_BODY_BYTES} bytes",
                reason="BODY_TOO_LARGE",
            )
        parts.append(part)
    return b"".join(parts)


def _refused(error: ServiceError) -> Response:
    headers = {"retry-after": str(error.retry_after_sec)} if error.retry_after_sec else {}
    if error.reason == "BODY_TOO_LARGE":
        # What is left of the body is not read.
        headers["connection"] = "close"
    return JSONResponse(rest_error(error), status_code=error.rest_status, headers=headers)
