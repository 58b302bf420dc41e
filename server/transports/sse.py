"""Server-sent events: a stream of replies as `event:`/`data:` blocks, with comments that keep the connection alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from google.protobuf.message import Message

from server.errors import ServiceError
from server.rpc.json_codec import REST_JSON, dumps
from server.rpc.status import rest_error
from server.transports.exchange import Exchange

_HEADERS = {
    "cache-control": "no-store",
    # nginx buffers answers unless told not to.
    "x-accel-buffering": "no",
}


async def serve_events(
    exchange: Exchange, replies: AsyncIterator[Message], event: str, keep_alive_sec: float
) -> None:
    """Send each reply as one event until the stream ends or the client goes.

    An error before the first reply is raised, so that it becomes a plain answer with its status; a later one is sent as
    an event named `error`.
    """
    gone = asyncio.create_task(exchange.disconnected(), name="sse-disconnect")
    try:
        await _pump(exchange, replies, event, keep_alive_sec, gone)
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        await replies.aclose()  # type: ignore[attr-defined]


async def _pump(
    exchange: Exchange,
    replies: AsyncIterator[Message],
    event: str,
    keep_alive_sec: float,
    gone: asyncio.Task[None],
) -> None:
    following: asyncio.Task[Message] | None = None
    try:
        while not gone.done():
            following = following or asyncio.ensure_future(anext(replies))
            await asyncio.wait({following, gone}, timeout=keep_alive_sec, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                done, following = following, None
                try:
                    data = dumps(REST_JSON.encode(done.result()))
                except StopAsyncIteration:
                    await _send(exchange, b"")
                    await exchange.send_part(b"", more=False)
                    return
                except ServiceError as error:
                    if not exchange.started:
                        raise
                    await _send(exchange, b"event: error\ndata: " + dumps(rest_error(error)) + b"\n\n")
                    await exchange.send_part(b"", more=False)
                    return
                await _send(exchange, b"event: " + event.encode() + b"\ndata: " + data + b"\n\n")
            elif not gone.done():
                await _send(exchange, b": keep-alive\n\n")
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _send(exchange: Exchange, block: bytes) -> None:
    if not exchange.started:
        await exchange.start(200, "text/event-stream; charset=utf-8", _HEADERS)
    if block:
        await exchange.send_part(block)
