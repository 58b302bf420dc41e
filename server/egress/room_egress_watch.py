"""Starts the egresses of participants and tracks that rooms ask for, as they come (livekit-surface.md 5.5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from server.domain.egress import RoomEgress
from server.domain.room import RoomMemory
from server.egress.room_egress import EgressStarter, participant_request, read_room_egress, track_request
from server.errors import Code, ServiceError
from server.ids import derived_egress_id
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)

_PASSING = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


@dataclass(frozen=True, slots=True)
class _Due:
    """An egress to start: its id follows from what it is of, so that it is started once, by whomever."""

    egress_id: str
    kept: RoomEgress
    request: Any


class RoomEgressWatch:
    """Looks at who publishes what after every change of rooms, and every second in case nobody told.

    Any number may run. What was missed while none did is made up for with what is still there.
    """

    def __init__(self, database: Database, starter: EgressStarter, *, every_sec: float = 1.0) -> None:
        self._database = database
        self._starter = starter
        self._every_sec = every_sec
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._settled: set[str] = set()

    def stir(self) -> None:
        """Rooms have changed."""
        self._stirred.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="room-egress")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def run_once(self) -> None:
        """Starts what is due. Raise ServiceError when the database is away."""
        async with self._database.read() as tx:
            kept = await tx.room_egress.open()
            present = await tx.rooms.present() if kept else RoomMemory()
        due = list(_due(kept, present))
        self._settled &= {one.egress_id for one in due}
        for one in due:
            if one.egress_id not in self._settled:
                await self._begin(one)

    async def _run(self) -> None:
        while True:
            self._stirred.clear()
            try:
                await self.run_once()
            except ServiceError as error:
                _log.warning("egresses of rooms cannot be started: %s", error.message)
            except Exception:  # noqa: BLE001 - a defect in one look must not end them all
                _log.exception("egresses of rooms could not be started; it is tried again")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_sec):
                    await self._stirred.wait()

    async def _begin(self, due: _Due) -> None:
        try:
            await self._starter.start(
                due.kept.project_id, due.request, default_key="", egress_id=due.egress_id
            )
        except ServiceError as error:
            if error.code in _PASSING:
                return
            _log.warning(
                "room %s: egress %s is not started: %s", due.kept.room_sid, due.egress_id, error.message
            )
        self._settled.add(due.egress_id)


def _due(kept: Sequence[RoomEgress], present: RoomMemory) -> Iterator[_Due]:
    """One for each publishing participant, by connection, and one for each track."""
    by_room = {one.room_sid: one for one in kept}
    publishing: set[str] = set()
    for publication in present.publications.values():
        asked = by_room.get(publication.room_sid)
        visit = present.visits.get(publication.participant_sid)
        if asked is None or visit is None:
            continue
        wanted = read_room_egress(asked.body)
        if wanted.HasField("tracks"):
            request = track_request(wanted, asked.room_name, publication.sid)
            yield _Due(derived_egress_id("track", publication.sid), asked, request)
        if wanted.HasField("participant") and visit.sid not in publishing:
            publishing.add(visit.sid)
            request = participant_request(wanted, asked.room_name, visit.identity)
            yield _Due(derived_egress_id("participant", visit.sid), asked, request)
