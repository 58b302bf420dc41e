"""Finds what no webhook told: compares what is remembered of rooms with what LiveKit shows, again and again.

LiveKit drops events that it could not deliver for about 30 s, and forgets them all when it ends (section 8).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from server.clock import Clock
from server.domain.room import (
    Participant,
    ParticipantKind,
    ParticipantState,
    Room,
    RoomMemory,
    Track,
    Visit,
)
from server.errors import ServiceError
from server.ports.rooms import RoomListing
from server.ports.unit_of_work import Database
from server.rooms.journal import RoomJournal
from server.rooms.news import News, NewsKind

_log = logging.getLogger(__name__)

KEPT = timedelta(hours=24)
_PURGE_EVERY_SEC = 3600.0
# LiveKit's time is not ours alone: a pass is followed by at least this many times its own duration of rest.
_REST = 4.0
# An embedded LiveKit needs a moment to start; only what lasts is worth a warning.
_WARN_AFTER = 3


@dataclass(frozen=True, slots=True)
class ReconcilePace:
    """`confirm_after_sec`: a difference counts only when it is there again after this time.

    Until then it may be news whose webhook is on its way, or a listing that LiveKit has not brought up to date.
    """

    every_sec: float = 5.0
    confirm_after_sec: float = 1.0
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class RoomView:
    """A room as LiveKit shows it."""

    room: Room
    participants: tuple[Participant, ...]


class Reconciler:
    """Any number of workers may run one: each difference is announced by the first that writes it."""

    def __init__(
        self,
        database: Database,
        livekit: RoomListing,
        journal: RoomJournal,
        clock: Clock,
        pace: ReconcilePace | None = None,
    ) -> None:
        self._database = database
        self._livekit = livekit
        self._journal = journal
        self._clock = clock
        self._pace = pace or ReconcilePace()
        self._task: asyncio.Task[None] | None = None
        self._purged_at = float("-inf")
        self._failures = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="room-reconciler")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def run_once(self) -> int:
        """One comparison, and a second look if there was a difference; how many announcements came of it.

        Raise ServiceError unavailable when LiveKit or the database does not answer: then nothing is concluded.
        """
        first = await self._differences()
        if not first:
            return 0
        await asyncio.sleep(self._pace.confirm_after_sec)
        seen_before = {(one.kind, one.subject) for one in first}
        confirmed = [one for one in await self._differences() if (one.kind, one.subject) in seen_before]
        return await self._journal.take_in(confirmed) if confirmed else 0

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.run_once()
                await self._purge_sometimes()
                if self._failures >= _WARN_AFTER:
                    _log.info("rooms are compared with LiveKit's again")
                self._failures = 0
            except ServiceError as error:
                self._failures += 1
                if self._failures == _WARN_AFTER:
                    _log.warning("rooms cannot be compared with LiveKit's: %s", error.message)
            except Exception:  # noqa: BLE001 - a defect in one pass must not end them all
                _log.exception("rooms could not be compared with LiveKit's; it is tried again")
            await asyncio.sleep(max(self._pace.every_sec, _REST * (time.monotonic() - began)))

    async def _purge_sometimes(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_EVERY_SEC:
            return
        async with self._database.begin() as tx:
            await tx.rooms.purge(before=self._clock.now() - KEPT)
            await tx.commit()
        self._purged_at = time.monotonic()

    async def _differences(self) -> list[News]:
        # What is remembered first: whoever comes in between is then not taken for gone.
        async with self._database.read() as tx:
            known = await tx.rooms.present()
        return differences(known, await self._views(), now=self._clock.now())

    async def _views(self) -> Sequence[RoomView]:
        gate = asyncio.Semaphore(self._pace.concurrency)

        async def view(room: Room) -> RoomView:
            async with gate:
                return RoomView(room, await self._livekit.participants(room.name))

        rooms = [room for room in await self._livekit.rooms() if room.sid]
        return await asyncio.gather(*map(view, rooms))


def differences(known: RoomMemory, views: Sequence[RoomView], *, now: datetime) -> list[News]:
    """Ends first, so that a room that was opened anew under its name has ended before it starts."""
    return [*_ended(known, views, now), *_begun(known, views, now)]


def _begun(known: RoomMemory, views: Sequence[RoomView], now: datetime) -> Iterator[News]:
    for view in views:
        if view.room.sid not in known.rooms:
            yield News(NewsKind.ROOM_STARTED, view.room, now, noticed=True)
        for one in view.participants:
            if one.state is ParticipantState.ACTIVE and one.sid not in known.visits:
                yield News(NewsKind.JOINED, view.room, now, participant=one, noticed=True)
            for track in one.tracks:
                if track.sid not in known.publications:
                    yield News(
                        NewsKind.PUBLISHED,
                        view.room,
                        now,
                        participant_sid=one.sid,
                        track=track,
                        noticed=True,
                    )


def _ended(known: RoomMemory, views: Sequence[RoomView], now: datetime) -> Iterator[News]:
    open_rooms = {view.room.sid: view.room for view in views if view.room.sid in known.rooms}
    everyone = [one for view in views for one in view.participants]
    here = {one.sid for one in everyone if one.state is not ParticipantState.DISCONNECTED}
    playing = {track.sid for one in everyone for track in one.tracks}
    for row in known.publications.values():
        if row.sid not in playing and row.room_sid in open_rooms:
            track = Track(row.sid, row.type, row.source, row.name)
            room = open_rooms[row.room_sid]
            yield News(
                NewsKind.UNPUBLISHED,
                room,
                now,
                participant_sid=row.participant_sid,
                track=track,
                noticed=True,
            )
    for visit in known.visits.values():
        if visit.sid not in here and visit.room_sid in open_rooms:
            room = open_rooms[visit.room_sid]
            yield News(NewsKind.LEFT, room, now, participant=_gone(visit), noticed=True)
    for session in known.rooms.values():
        if session.sid not in open_rooms:
            yield News(NewsKind.ROOM_FINISHED, Room(session.sid, session.name, None), now, noticed=True)


def _gone(visit: Visit) -> Participant:
    """As much of a participant as is still known."""
    return Participant(
        sid=visit.sid,
        identity=visit.identity,
        name=visit.name,
        state=ParticipantState.DISCONNECTED,
        kind=ParticipantKind.STANDARD,
        joined_at=visit.joined_at,
    )
