"""`/rtc`, `/rtc/v1`, their `/validate` and `/settings/regions`: SDKs given our address alone can join rooms.

Signalling passes through to the LiveKit behind under a token of its own; media goes between participant and LiveKit directly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog

from server.auth.livekit_join import JoinTokens
from server.auth.livekit_tokens import LiveKitCaller, LiveKitTokens, bearer
from server.errors import ServiceError
from server.ports.livekit import LiveKitSource, SignalAnswer, SignalClient, SignalConnection, SignalRefused
from server.services.join_egress import JoinEgress
from server.transports.exchange import Exchange, Receive, Scope, Send, headers_of, request_id_of
from server.transports.livekit_frames import ShownFrames
from server.transports.livekit_http import (
    TEXT,
    access_token_of,
    answer_not_found,
    answer_preflight,
    answer_text,
    cors_headers,
    is_preflight,
    path_of,
)

SOCKETS = ("/rtc", "/rtc/v1")
_VALIDATIONS = ("/rtc/validate", "/rtc/v1/validate")
PATHS = frozenset((*SOCKETS, *_VALIDATIONS, "/settings/regions"))
_ABNORMAL = 1011
# LiveKit learns who connects: SDK, browser and address stand in what it logs and reports.
_PASSED_HEADERS = ("user-agent",)
# The room stands in the token alone: older servers would take any other one from here.
_KEPT_BACK = ("access_token", "room")
_log = structlog.get_logger("signal")


class LiveKitSignal:
    """Signalling through us."""

    def __init__(
        self,
        livekit: LiveKitSource,
        client: SignalClient,
        tokens: LiveKitTokens,
        joins: JoinTokens,
        egress: JoinEgress,
    ) -> None:
        self._livekit = livekit
        self._client = client
        self._tokens = tokens
        self._joins = joins
        self._egress = egress
        self._beginning: set[asyncio.Task[None]] = set()

    async def serve(self, exchange: Exchange) -> None:
        """A plain request: `/validate` says why a participant cannot join, the rest is not found."""
        if is_preflight(exchange):
            await answer_preflight(exchange)
            return
        path = path_of(exchange.scope)
        try:
            caller, token = await self._caller(exchange.scope, exchange.headers)
            if path in _VALIDATIONS:
                await self._validate(exchange, path, caller, token)
            elif path in SOCKETS:
                await exchange.respond(404, b"", None, cors_headers(exchange.headers))
            else:
                await answer_not_found(exchange)
        except ServiceError as error:
            await answer_text(exchange, error.rendering.twirp_http, error.message)

    async def connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket, for as long as it lasts."""
        headers = headers_of(scope["headers"])
        request_id = request_id_of(headers)
        began = time.perf_counter()
        await receive()
        project: str | None = None
        try:
            caller, token = await self._caller(scope, headers)
            project = caller.project_id
            begin = await self._egress.prepare(caller)
            upstream = await self._upstream(scope, headers, caller, token)
            if begin is not None:
                self._begin(begin())
        except SignalRefused as refusal:
            await _deny(send, refusal.answer)
            outcome: int = refusal.answer.status
        except ServiceError as error:
            answer = SignalAnswer(error.rendering.twirp_http, TEXT, error.message.encode())
            await _deny(send, answer)
            outcome = answer.status
        else:
            await send({"type": "websocket.accept"})
            outcome = await _relay(upstream, ShownFrames(self._joins, caller), receive, send)
        seconds = round(time.perf_counter() - began, 3)
        _log.info("signal", outcome=outcome, project=project, request_id=request_id, duration_sec=seconds)

    async def _caller(self, scope: Scope, headers: Mapping[str, str]) -> tuple[LiveKitCaller, str]:
        token = bearer(headers, access_token_of(scope))
        return await self._tokens.verify(token), token

    async def _upstream(
        self, scope: Scope, headers: Mapping[str, str], caller: LiveKitCaller, token: str
    ) -> SignalConnection:
        signed = self._joins.to_livekit(caller, token, await self._livekit.address())
        return await self._client.connect(path_of(scope), _query(scope), signed, _passed(scope, headers))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Beside the call: nobody waits for a recording before joining."""
        task = asyncio.create_task(work, name="join-egress")
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _validate(self, exchange: Exchange, path: str, caller: LiveKitCaller, token: str) -> None:
        await self._egress.prepare(caller)
        signed = self._joins.to_livekit(caller, token, await self._livekit.address())
        scope = exchange.scope
        answer = await self._client.get(path, _query(scope), signed, _passed(scope, exchange.headers))
        headers = {**cors_headers(exchange.headers), "access-control-allow-origin": "*"}
        await exchange.respond(answer.status, answer.body, answer.content_type or None, headers)


async def _relay(upstream: SignalConnection, frames: ShownFrames, receive: Receive, send: Send) -> int:
    """Until either side ends; the code that the other one is told."""

    async def up() -> int:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1000)
            data = message.get("bytes")
            await upstream.send(data if data is not None else message["text"])

    async def down() -> int:
        while (frame := await upstream.receive()) is not None:
            shown = await frames.shown(frame)
            if shown is not None:
                kind = "text" if isinstance(shown, str) else "bytes"
                await send({"type": "websocket.send", kind: shown})
        return upstream.close_code

    upward, downward = asyncio.create_task(up()), asyncio.create_task(down())
    try:
        await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
        code = _outcome(upward if upward.done() else downward)
        if not upward.done():
            with suppress(OSError, RuntimeError):
                await send({"type": "websocket.close", "code": code})
        return code
    finally:
        for task in (upward, downward):
            task.cancel()
        await asyncio.gather(upward, downward, return_exceptions=True)
        await upstream.close(1000)


def _outcome(task: asyncio.Task[int]) -> int:
    fault = task.exception()
    if fault is None:
        return task.result()
    if not isinstance(fault, (ConnectionError, OSError)):
        _log.error("signal failed", exc_info=fault)
    return _ABNORMAL


async def _deny(send: Send, answer: SignalAnswer) -> None:
    """An HTTP answer instead of the upgrade, as SDKs expect it."""
    # The connection cannot be used for anything else afterwards.
    headers = [(b"content-length", str(len(answer.body)).encode()), (b"connection", b"close")]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode("latin-1", "replace")))
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})


def _query(scope: Scope) -> str:
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return urlencode([(name, value) for name, value in pairs if name not in _KEPT_BACK])


def _passed(scope: Scope, headers: Mapping[str, str]) -> dict[str, str]:
    passed = {name: headers[name] for name in _PASSED_HEADERS if name in headers}
    if client := scope.get("client"):
        passed["X-Forwarded-For"] = client[0]
    return passed
