"""One HTTP request and its answer over bare ASGI, with the limits that keep slow or endless bodies out."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from server.errors import Code, ServiceError
from server.rpc.dispatch import CallInfo

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TIMEOUT_MS = re.compile(r"[0-9]{1,8}")
# How much of a refused body is still read, so that the client sees the answer and not a reset connection.
_LINGER_SEC = 2.0
_LINGER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """`json_bytes` bounds JSON bodies and form fields together, `message_bytes` protobuf bodies, `upload_bytes` the
    file of an upload (inclusive). After `grace_sec` of waiting for a body its mean rate must be `min_rate` bytes/s.
    """

    json_bytes: int = 256 * 1024
    message_bytes: int = 1024 * 1024
    upload_bytes: int = 2 * 1024**3
    grace_sec: float = 10.0
    min_rate: float = 16 * 1024


class Exchange:
    """A request being answered. Used by one task."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits) -> None:
        self.scope = scope
        self.limits = limits
        self.headers = headers_of(scope["headers"])
        self.request_id = request_id_of(self.headers)
        self.started = False
        self._receive = receive
        self._send = send
        self._complete = False
        self._waited = 0.0
        self._got = 0

    def call(self, transport: str) -> CallInfo:
        """What dispatch is told of this request."""
        client = self.scope.get("client")
        peer = f"{client[0]}:{client[1]}" if client else ""
        return CallInfo(transport, self.request_id, self.headers, peer, timeout_of(self.headers))

    async def body(self, limit: int) -> bytes:
        """The whole body; refused by its announced length, or when it turns out longer than `limit` bytes."""
        self.check_length(limit)
        parts = []
        size = 0
        async for part in self.stream():
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
        return b"".join(parts)

    def check_length(self, limit: int) -> None:
        """Refuse a body that announces more than `limit` bytes, before any of it is read."""
        announced = self.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            raise too_large(limit)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises canceled if the client goes away, deadline_exceeded if it is too slow."""
        while not self._complete:
            message = await self._receive_in_time()
            if message["type"] == "http.disconnect":
                self._complete = True
                raise ServiceError(
                    Code.CANCELLED, "the client closed the connection before the request was complete"
                )
            self._complete = not message.get("more_body", False)
            part = message.get("body", b"")
            self._got += len(part)
            if part:
                yield part

    async def respond(
        self, status: int, body: bytes, content_type: str | None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer; then, if the request's body was not read to its end, close the connection without a reset."""
        unread = not self._complete and self._has_body()
        await self.start(
            status, content_type, {**(headers or {}), "content-length": str(len(body))}, close=unread
        )
        if self.scope["method"] == "HEAD":
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await self._linger()
            await self._send({"type": "http.response.body", "body": b""})

    async def start(
        self, status: int, content_type: str | None, headers: Mapping[str, str], *, close: bool = False
    ) -> None:
        pairs = [(REQUEST_ID_HEADER.encode(), self.request_id.encode())]
        if content_type is not None:
            pairs.append((b"content-type", content_type.encode("latin-1")))
        pairs += [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()
        ]
        if close:
            pairs.append((b"connection", b"close"))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send_part(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def disconnected(self) -> None:
        """Return when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _receive_in_time(self) -> Message:
        """Only time spent waiting counts: a body is not slow because we are."""
        earned = self._got / self.limits.min_rate
        allowed = self.limits.grace_sec + earned - self._waited
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(allowed, 0.0)):
                return await self._receive()
        except TimeoutError:
            raise ServiceError(
                Code.DEADLINE_EXCEEDED, "the request body came too slowly", reason="BODY_TOO_SLOW"
            ) from None
        finally:
            self._waited += time.monotonic() - began

    def _has_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    async def _linger(self) -> None:
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SEC):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lower-case names; values given more than once are joined, as RFC 9110 section 5.3 allows."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's `X-Request-Id` if it is harmless, else a new one."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Seconds the client waits: `X-Twirp-Timeout-Ms`, which LiveKit's Go SDK sends; works on REST too."""
    given = headers.get("x-twirp-timeout-ms", "")
    return int(given) / 1000 if _TIMEOUT_MS.fullmatch(given) else None


def too_large(limit: int) -> ServiceError:
    return ServiceError(
        Code.RESOURCE_EXHAUSTED, f"the request body is larger than {limit} bytes", reason="BODY_TOO_LARGE"
    )
