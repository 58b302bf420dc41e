"""Takes LiveKit's webhooks: checks them, and writes down what waits in one transaction, so that each costs little."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

from server.clock import Clock
from server.errors import ServiceError, unavailable
from server.ports.livekit import LiveKitSource
from server.rooms.journal import RoomJournal
from server.rooms.news import News
from server.rooms.webhook_body import parse_body
from server.rooms.webhook_signature import check_signature

_log = logging.getLogger(__name__)

MAX_BATCH = 256
# LiveKit keeps what we refuse and sends it again; what is missed in the end is found by looking.
MAX_WAITING = 4096
# A token lives for 5 minutes, so whatever is repeated later is refused for its age. This only spares the database:
# that nothing is announced twice is the state's doing.
_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class _Waiting:
    news: News
    written: asyncio.Future[None]


class LiveKitWebhooks:
    """What `POST /livekit/webhook` hands its requests to."""

    def __init__(self, livekit: LiveKitSource, journal: RoomJournal, clock: Clock) -> None:
        self._livekit = livekit
        self._journal = journal
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def accept(self, authorization: str, body: bytes) -> None:
        """Returns once what the event changes is committed, or it changes nothing.

        Raise ServiceError: unauthenticated, malformed, or unavailable when LiveKit should send it again.
        """
        check_signature(authorization, body, await self._livekit.address())
        event = parse_body(body, now=self._clock.now())
        if event.news is None or event.event_id in self._seen:
            return
        await self._written(event.news)
        if event.event_id:
            self._seen[event.event_id] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)

    async def aclose(self) -> None:
        """What has been accepted is written."""
        if self._writing is not None:
            with suppress(asyncio.CancelledError):
                await self._writing

    async def _written(self, news: News) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise unavailable("too many webhooks are waiting", retry_after_sec=1)
        one = _Waiting(news, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="livekit-webhooks")
        await one.written

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._write(batch)
        finally:
            self._writing = None

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            await self._journal.take_in([one.news for one in batch])
        except ServiceError as error:
            _settle(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, LiveKit must get its answer
            if len(batch) == 1:
                _log.exception("a LiveKit webhook could not be taken in")
                _settle(batch, error)
                return
            # One bad event must not take others with it.
            for one in batch:
                await self._write([one])
        else:
            _settle(batch, None)


def _settle(batch: list[_Waiting], error: Exception | None) -> None:
    for one in batch:
        if one.written.done():
            continue
        if error is None:
            one.written.set_result(None)
        else:
            one.written.set_exception(error)
