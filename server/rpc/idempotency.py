"""`Idempotency-Key`: the same key and request give the stored answer, another request is refused.

Keys are scoped by project and method and kept for 24 hours. The fingerprint of a unary request is its deterministic
serialisation; that of an upload is its options and the SHA-256 of its bytes, so it is known, and the key taken, when the
last byte has come.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from server.clock import Clock
from server.context import CallContext
from server.errors import Code, ServiceError, invalid
from server.ports.unit_of_work import Database

HEADER = "idempotency-key"
_LONGEST = 255
# Stands for the operator, who acts in no project; no project id looks like it.
_ADMIN_SCOPE = "@admin"
_RETRY_AFTER_SEC = 2
# Below this a hop to a thread costs more than hashing.
_HASH_IN_THREAD = 64 * 1024


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key of a call; None if it has none."""
    key = headers.get(HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST or not key.isascii() or not key.isprintable():
        raise invalid("Idempotency-Key", f"must be 1 to {_LONGEST} printable ASCII characters")
    return key


@dataclass(frozen=True, slots=True)
class Slot:
    """One key of one method in one project."""

    project: str
    method: str
    key: str

    @classmethod
    def of(cls, ctx: CallContext, key: str) -> Slot:
        return cls(ctx.caller.project_id or _ADMIN_SCOPE, ctx.method, key)


class IdempotencyKeys:
    """Reserves keys and keeps what they answered."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def reserve(self, slot: Slot, fingerprint: str) -> bytes | None:
        """None once the key is ours, else the serialised reply it already gave.

        Raises failed_precondition: reason IDEMPOTENCY_CONFLICT for another request, IDEMPOTENCY_IN_PROGRESS while the
        first call runs.
        """
        async with self._database.begin() as unit:
            stored = await unit.idempotency.begin(
                slot.project, slot.key, slot.method, fingerprint, self._clock.now()
            )
            await unit.commit()
        if stored is None:
            return None
        if stored.fingerprint != fingerprint:
            raise ServiceError(
                Code.FAILED_PRECONDITION,
                "this Idempotency-Key was used with another request",
                reason="IDEMPOTENCY_CONFLICT",
            )
        if stored.reply is None:
            raise ServiceError(
                Code.FAILED_PRECONDITION,
                "the first call with this Idempotency-Key is still running",
                reason="IDEMPOTENCY_IN_PROGRESS",
                retry_after_sec=_RETRY_AFTER_SEC,
            )
        return stored.reply

    async def finish(self, slot: Slot, reply: Message) -> None:
        async with self._database.begin() as unit:
            await unit.idempotency.finish(
                slot.project, slot.key, slot.method, reply.SerializeToString(deterministic=True)
            )
            await unit.commit()

    async def abandon(self, slot: Slot) -> None:
        async with self._database.begin() as unit:
            await unit.idempotency.abandon(slot.project, slot.key, slot.method)
            await unit.commit()


def fingerprint_of(method: str, request: Message) -> str:
    digest = hashlib.sha256(method.encode() + b"\0")
    digest.update(request.SerializeToString(deterministic=True))
    return digest.hexdigest()


class Replayed(Exception):
    """Ends a handler whose upload turns out to be a repetition; carries the stored reply."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("already answered")
        self.reply = reply


class FingerprintedStream:
    """Passes the messages of a client stream on and reserves the key when the last one has come.

    What has been answered already, or must be refused, is raised into the handler in place of the end of the stream, and
    kept in `outcome` in case the handler wraps it.
    """

    def __init__(
        self, messages: AsyncIterator[Message], bulk_field: str | None, keys: IdempotencyKeys, slot: Slot
    ) -> None:
        self._messages = messages
        self._bulk_field = bulk_field
        self._keys = keys
        self._slot = slot
        self._bulk = hashlib.sha256()
        self._rest = hashlib.sha256(slot.method.encode() + b"\0")
        self.reserved = False
        self.outcome: Exception | None = None

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            message = await anext(self._messages)
        except StopAsyncIteration:
            await self._settle()
            raise
        bulk: bytes = getattr(message, self._bulk_field) if self._bulk_field else b""
        if len(bulk) >= _HASH_IN_THREAD:
            await asyncio.to_thread(self._bulk.update, bulk)
        elif bulk:
            self._bulk.update(bulk)
        else:
            self._rest.update(message.SerializeToString(deterministic=True))
        return message

    async def _settle(self) -> None:
        if self.reserved:
            return
        try:
            reply = await self._keys.reserve(self._slot, self._rest.hexdigest() + self._bulk.hexdigest())
        except ServiceError as refused:
            self.outcome = refused
            raise
        if reply is not None:
            self.outcome = Replayed(reply)
            raise self.outcome
        self.reserved = True
