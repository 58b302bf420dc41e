"""The one path every call takes, whatever transport brought it.

authenticate → authorise → validate → deadline → idempotency → handler → map the error → one log line and metrics.
Transports decode and encode; services see a message and a `CallContext`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from server.clock import Clock
from server.context import CallContext, ReplyNotes, SignedRequest
from server.errors import Code, ServiceError
from server.observability.metrics import RpcMetrics
from server.observability.tracing import NoTracer, Tracer
from server.rpc.idempotency import (
    FingerprintedStream,
    IdempotencyKeys,
    Replayed,
    Slot,
    fingerprint_of,
    key_of,
)
from server.rpc.rate_limit import RateLimit
from server.rpc.registry import Method
from server.rpc.status import to_service_error
from server.rpc.validation import validate

DEFAULT_TIMEOUT_SEC = 60.0
_LONGEST_TIMEOUT_SEC = 24 * 3600.0
_OK = "ok"

_log = structlog.get_logger("rpc")

Decode = Callable[[], Message]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What a transport knows of a call. `headers` are lower-case; those given twice are joined by a comma, so that a
    second credential can never stand in for the first. `timeout_sec` is what the client allows, None if it says nothing.
    `signed` is the request where a signature may stand in for a key, None elsewhere.
    """

    transport: str
    request_id: str
    headers: Mapping[str, str] = field(repr=False)
    peer: str = ""
    timeout_sec: float | None = None
    signed: SignedRequest | None = None
    notes: ReplyNotes = field(default_factory=ReplyNotes)


class Dispatcher:
    """Runs calls. One instance serves all transports of a process."""

    def __init__(
        self,
        *,
        idempotency: IdempotencyKeys,
        clock: Clock,
        metrics: RpcMetrics,
        tracer: Tracer | None = None,
        rate_limit: RateLimit | None = None,
        default_timeout_sec: float = DEFAULT_TIMEOUT_SEC,
    ) -> None:
        self._idempotency = idempotency
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer or NoTracer()
        self._rate_limit = rate_limit
        self._default_timeout_sec = default_timeout_sec
        self._running: set[asyncio.Task[Message]] = set()
        self._closing = asyncio.Event()
        self._bulk_fields: dict[Method, str | None] = {}

    async def unary(self, method: Method, decode: Decode, call: CallInfo) -> Message:
        """One request, one reply. `decode` is called once the caller is known. Raises ServiceError only."""
        seen = _Seen(self._metrics, method, call)
        limit = asyncio.timeout(self._limit(call, self._default_timeout_sec))
        try:
            with self._tracer.span(method.full_name, call.headers):
                async with limit:
                    ctx = await self._admit(method, call, seen)
                    request = decode()
                    method.authoriser.authorise(method, ctx.caller, request)
                    if method.rule.validated:
                        validate(request)
                    reply = await self._answer(method, request, ctx)
                _check_reply(method, reply)
        except BaseException as fault:  # noqa: BLE001 - everything is mapped and raised again
            raise seen.failed(fault, expired=limit.expired()) from None
        seen.ended(_OK)
        return reply

    async def client_stream(
        self, method: Method, requests: AsyncIterator[Message], call: CallInfo
    ) -> Message:
        """A stream of requests, one reply. The stream is closed when the call ends, read to its end or not."""
        seen = _Seen(self._metrics, method, call)
        limit = asyncio.timeout(self._limit(call, None))
        try:
            with self._tracer.span(method.full_name, call.headers):
                async with limit:
                    ctx = await self._admit(method, call, seen)
                    reply = await self._answer_stream(method, self._checked(method, requests), ctx)
                _check_reply(method, reply)
        except BaseException as fault:  # noqa: BLE001 - everything is mapped and raised again
            raise seen.failed(fault, expired=limit.expired()) from None
        finally:
            await _close(requests)
        seen.ended(_OK)
        return reply

    async def server_stream(self, method: Method, decode: Decode, call: CallInfo) -> AsyncIterator[Message]:
        """One request, a stream of replies; ends with `unavailable` when the server is going down."""
        seen = _Seen(self._metrics, method, call, timed=False)
        replies: AsyncIterator[Message] | None = None
        try:
            ctx = await self._admit(method, call, seen)
            request = decode()
            method.authoriser.authorise(method, ctx.caller, request)
            validate(request)
            replies = _handler(method)(request, ctx)
            limit = self._limit(call, None)
            until = None if limit is None else time.monotonic() + limit
            async with aclosing(self._until_closing(replies, until)) as running:
                async for reply in running:
                    _check_reply(method, reply)
                    yield reply
        except GeneratorExit:
            seen.ended(Code.CANCELLED.value)
            raise
        except BaseException as fault:  # noqa: BLE001 - everything is mapped and raised again
            raise seen.failed(fault) from None
        else:
            seen.ended(_OK)
        finally:
            await _close(replies)

    async def aclose(self) -> None:
        """End server streams and wait for calls that must not be broken off. Call it when transports have stopped."""
        self.end_streams()
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    def end_streams(self) -> None:
        """Tell every server stream to end, so that transports can stop gracefully."""
        self._closing.set()

    async def _admit(self, method: Method, call: CallInfo, seen: _Seen) -> CallContext:
        caller = await method.authoriser.authenticate(method, call.headers, call.signed)
        seen.project = caller.project_id
        if self._rate_limit is not None:
            self._rate_limit.spend(caller)
        if method.handler is None:
            raise ServiceError(Code.UNIMPLEMENTED, f"{method.full_name} is not implemented yet")
        deadline = None
        if call.timeout_sec is not None:
            deadline = self._clock.now() + timedelta(seconds=min(call.timeout_sec, _LONGEST_TIMEOUT_SEC))
        key = key_of(call.headers) if method.rule.creates else None
        return CallContext(
            method.full_name, call.transport, call.request_id, caller, call.headers, deadline, key, call.notes
        )

    async def _answer(self, method: Method, request: Message, ctx: CallContext) -> Message:
        key = ctx.idempotency_key
        if key is None:
            reply: Message = await _handler(method)(request, ctx)
            return reply
        slot = Slot.of(ctx, key)
        stored = await self._idempotency.reserve(slot, fingerprint_of(method.full_name, request))
        if stored is not None:
            return method.reply_type.FromString(stored)
        # A caller that goes away must not leave a thing made whose key was freed: the call runs on without it.
        return await asyncio.shield(self._spawn(self._kept(slot, _handler(method)(request, ctx))))

    async def _answer_stream(
        self, method: Method, requests: AsyncIterator[Message], ctx: CallContext
    ) -> Message:
        key = ctx.idempotency_key
        if key is None:
            reply: Message = await _handler(method)(requests, ctx)
            return reply
        stream = FingerprintedStream(
            requests, self._bulk_field(method), self._idempotency, slot := Slot.of(ctx, key)
        )
        task = self._spawn(self._kept(slot, _handler(method)(stream, ctx), stream))
        try:
            return await asyncio.shield(task)
        except Replayed as replayed:
            return method.reply_type.FromString(replayed.reply)
        except asyncio.CancelledError:
            if not stream.reserved:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            raise

    def _spawn(self, work: Any) -> asyncio.Task[Message]:
        task: asyncio.Task[Message] = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Message]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the caller, if there still is one, has been told

    async def _kept(self, slot: Slot, work: Any, stream: FingerprintedStream | None = None) -> Message:
        """The handler's reply, stored under its key. What the key's bookkeeping meets is never the caller's answer."""
        try:
            reply: Message = await work
        except BaseException as fault:
            if stream is None or stream.reserved:
                await _logged(self._idempotency.abandon(slot), "key not freed", slot)
            elif stream.outcome is not None and stream.outcome is not fault:
                raise stream.outcome from fault
            raise
        if stream is None or stream.reserved:
            await _logged(self._idempotency.finish(slot, reply), "reply not stored", slot)
        return reply

    async def _checked(self, method: Method, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        bulk = self._bulk_field(method)
        async for request in requests:
            if bulk is None or not request.HasField(bulk):
                validate(request, unwrap=True)
            yield request

    def _bulk_field(self, method: Method) -> str | None:
        """The bytes field of a client stream's `oneof`, whose messages need no checking and are hashed as they are."""
        if method not in self._bulk_fields:
            fields = method.descriptor.input_type.fields
            names = [
                one.name for one in fields if one.type == FieldDescriptor.TYPE_BYTES and one.containing_oneof
            ]
            self._bulk_fields[method] = names[0] if names else None
        return self._bulk_fields[method]

    async def _until_closing(
        self, replies: AsyncIterator[Message], until: float | None
    ) -> AsyncGenerator[Message]:
        closing = asyncio.create_task(self._closing.wait())
        following: asyncio.Task[Message] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(replies))
                left = None if until is None else max(0.0, until - time.monotonic())
                await asyncio.wait({following, closing}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    try:
                        yield following.result()
                    except StopAsyncIteration:
                        return
                elif closing.done():
                    raise ServiceError(Code.UNAVAILABLE, "the server is shutting down", retry_after_sec=1)
                else:
                    raise ServiceError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        finally:
            for task in (closing, following):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(task for task in (closing, following) if task), return_exceptions=True)

    def _limit(self, call: CallInfo, default: float | None) -> float | None:
        return default if call.timeout_sec is None else min(max(call.timeout_sec, 0.0), _LONGEST_TIMEOUT_SEC)


class _Seen:
    """One call as the log and the metrics see it."""

    __slots__ = ("_began", "_call", "_method", "_metrics", "_timed", "project")

    def __init__(self, metrics: RpcMetrics, method: Method, call: CallInfo, *, timed: bool = True) -> None:
        self._metrics = metrics
        self._method = method
        self._call = call
        self._timed = timed
        self._began = time.perf_counter()
        self.project: str | None = None
        metrics.began(method.full_name, call.transport)

    def ended(self, code: str, message: str | None = None, fault: BaseException | None = None) -> None:
        seconds = time.perf_counter() - self._began
        rpc, transport = self._method.full_name, self._call.transport
        self._metrics.ended(rpc, transport, code, seconds, timed=self._timed)
        said: dict[str, Any] = {} if message is None else {"message": message}
        emit = _log.info if fault is None else _log.error
        if fault is not None:
            said["exc_info"] = fault
        emit(
            "rpc",
            rpc=rpc,
            transport=transport,
            code=code,
            duration_ms=round(seconds * 1000, 3),
            project=self.project,
            request_id=self._call.request_id,
            peer=self._call.peer,
            **said,
        )

    def failed(self, fault: BaseException, *, expired: bool = False) -> BaseException:
        """Log the failure; what to raise instead."""
        if expired and isinstance(fault, TimeoutError):
            fault = ServiceError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        error = to_service_error(fault, self._call.request_id)
        unexpected = error.code is Code.INTERNAL
        self.ended(error.code.value, error.message, fault if unexpected else None)
        return error if isinstance(fault, Exception) else fault


def _handler(method: Method) -> Callable[[Any, Any], Any]:
    assert method.handler is not None
    return method.handler


async def _logged(bookkeeping: Awaitable[None], event: str, slot: Slot) -> None:
    try:
        await bookkeeping
    except Exception:  # noqa: BLE001 - the call itself is decided; a key left reserved frees itself later
        _log.error(event, rpc=slot.method, project=slot.project, exc_info=True)


def _check_reply(method: Method, reply: object) -> None:
    if not isinstance(reply, method.reply_type):
        raise TypeError(f"{method.full_name} answered {type(reply).__name__}")


async def _close(stream: object) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
