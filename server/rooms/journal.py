"""Takes in news of rooms: what they change and the events they cause are written in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from server.clock import Clock
from server.domain.room import Room
from server.domain.room_names import RoomNames
from server.domain.webhook import NewEvent
from server.ports.unit_of_work import Database, UnitOfWork
from server.rooms.announcements import events_of
from server.rooms.news import News, NewsKind
from server.rooms.state import scope_of, take_in


class BatchRecorder(Protocol):
    """Records events for those who subscribed, in the caller's transaction."""

    async def record_all(self, tx: UnitOfWork, events: Sequence[NewEvent]) -> None: ...


class RoomJournal:
    """What has happened in rooms, each thing taken in once, whoever tells it and however often.

    Webhooks, reconciliation and CreateRoom may tell the same at the same time, from any process.
    """

    def __init__(self, database: Database, recorder: BatchRecorder, names: RoomNames, clock: Clock) -> None:
        self._database = database
        self._recorder = recorder
        self._names = names
        self._clock = clock
        self._listening: list[Callable[[], None]] = []

    def listen(self, changed: Callable[[], None]) -> None:
        """`changed` is called after every commit of this journal."""
        self._listening.append(changed)

    async def take_in(self, news: Sequence[News]) -> int:
        """All in one transaction; how many announcements came of it. Raise ServiceError unavailable."""
        async with self._database.begin() as tx:
            told = await self._take_in(tx, news)
            await tx.commit()
        self._tell()
        return told

    async def created(self, room: Room, *, enable_recording: bool) -> None:
        """A room that is open since now or was before; the recording permission of the first who says stays (B-46)."""
        news = News(NewsKind.ROOM_STARTED, room, self._clock.now())
        async with self._database.begin() as tx:
            await self._take_in(tx, [news])
            await tx.rooms.settle_recording(room.sid, allowed=enable_recording)
            await tx.commit()
        self._tell()

    def _tell(self) -> None:
        for changed in self._listening:
            changed()

    async def _take_in(self, tx: UnitOfWork, news: Sequence[News]) -> int:
        outcome = take_in(await tx.rooms.recall(scope_of(news)), news, self._names)
        await tx.rooms.remember(outcome.changed)
        now = self._clock.now()
        events = [event for one in outcome.announcements for event in events_of(one, now=now)]
        await self._recorder.record_all(tx, events)
        return len(outcome.announcements)
