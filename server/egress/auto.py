"""Starts the egresses that projects' rules ask for, once for each session of a room (AE)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from server.clock import Clock
from server.domain.egress import Egress, Surface
from server.domain.recording import AutoEgress
from server.domain.room import OpenRoom, RoomSession, Visit
from server.egress.compositions import Composition, Compositions
from server.egress.control import Decide
from server.errors import Code, ServiceError
from server.ports.unit_of_work import Database, UnitOfWork

_log = logging.getLogger(__name__)

# What may be otherwise at the next look: LiveKit or the database away, a room just closed or opened anew.
_PASSING = frozenset({Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED})


# However much happens in rooms, the database is asked no more often.
_REST_SEC = 0.1


def composition_of(rules: AutoEgress, room_name: str) -> Composition:
    """What the rules ask for in a room."""
    return Composition(
        room_name=room_name,
        mode=rules.mode,
        layout=rules.layout,
        quality=rules.quality,
        file_type=rules.file_type,
        urls=rules.urls,
    )


def matches(pattern: str, room_name: str) -> bool:
    """`*` stands for any run of characters, also none; all else for itself (B-79)."""
    expression = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(expression, room_name, re.DOTALL) is not None


def enough_since(visits: Iterable[Visit], minimum: int) -> datetime | None:
    """Since when there have been at least `minimum` people without a break; None if there are fewer now.

    Who has two connections for a moment is one of them; whoever is no person does not count.
    """
    people = [visit for visit in visits if visit.person]
    # At the same moment those who come go first: whoever only changes the connection leaves no gap.
    steps = sorted(
        [(visit.joined_at, 0, visit.identity) for visit in people]
        + [(visit.left_at, 1, visit.identity) for visit in people if visit.left_at is not None]
    )
    here: Counter[str] = Counter()
    since: datetime | None = None
    for at, leaves, identity in steps:
        here[identity] += -1 if leaves else 1
        count = sum(1 for connections in here.values() if connections > 0)
        if count < minimum:
            since = None
        elif since is None:
            since = at
    return since


@dataclass(frozen=True, slots=True)
class _Due:
    """A session of a room that its project's rules want, and from when on."""

    rules: AutoEgress
    session: RoomSession
    at: datetime


class AutoEgressWatch:
    """Looks at who is in which room after every change, and every second in case nobody told.

    Any number may run: which session of a room had its egress is written with its start, in one transaction, so none
    is started twice, and a session that nobody looked at for a while, because every worker was down, still gets its own.
    """

    def __init__(
        self, database: Database, compositions: Compositions, clock: Clock, *, every_sec: float = 1.0
    ) -> None:
        self._database = database
        self._compositions = compositions
        self._clock = clock
        self._every_sec = every_sec
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Sessions that need no further look, and those of which a warning was logged under these rules.
        self._settled: set[str] = set()
        self._refused: dict[str, datetime | None] = {}

    def stir(self) -> None:
        """Rooms or rules have changed."""
        self._stirred.set()

    @property
    def stirred(self) -> bool:
        """Whether something has changed since the last look."""
        return self._stirred.is_set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="auto-egress")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def run_once(self) -> float:
        """Starts what is due; seconds until the next is. Raise ServiceError when the database is away."""
        async with self._database.read() as tx:
            rules = await tx.auto_egress.enabled()
            rooms = await tx.rooms.open_rooms([one.project_id for one in rules]) if rules else ()
            found = [await _due(tx, *candidate) for candidate in self._candidates(rules, rooms)]
        self._forget({room.session.sid for room in rooms})
        waiting = [due for due in found if due is not None]
        now = self._clock.now()
        for due in waiting:
            if due.at <= now:
                await self._begin(due)
        left = [(due.at - now).total_seconds() for due in waiting if due.at > now]
        return min([self._every_sec, *left])

    async def _run(self) -> None:
        while True:
            self._stirred.clear()
            pause = self._every_sec
            try:
                pause = await self.run_once()
            except ServiceError as error:
                _log.warning("automatic egresses cannot be started: %s", error.message)
            except Exception:  # noqa: BLE001 - a defect in one look must not end them all
                _log.exception("automatic egresses could not be started; it is tried again")
            await asyncio.sleep(_REST_SEC)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause - _REST_SEC, 0.0)):
                    await self._stirred.wait()

    def _candidates(
        self, rules: Sequence[AutoEgress], rooms: Sequence[OpenRoom]
    ) -> Iterator[tuple[AutoEgress, RoomSession]]:
        by_project = {one.project_id: one for one in rules}
        for room in rooms:
            session, wanted = room.session, by_project[room.session.project_id]
            if room.people < wanted.min_participants or self._is_settled(session.sid, wanted):
                continue
            if matches(wanted.room_name_pattern, session.name):
                yield wanted, session

    def _is_settled(self, sid: str, rules: AutoEgress) -> bool:
        """Begun; or refused under these rules, so that it would be again."""
        return sid in self._settled or (sid in self._refused and self._refused[sid] == rules.updated_at)

    def _forget(self, open_sids: Collection[str]) -> None:
        self._settled.intersection_update(open_sids)
        self._refused = {sid: at for sid, at in self._refused.items() if sid in open_sids}

    async def _begin(self, due: _Due) -> None:
        session = due.session
        try:
            await self._compositions.start(
                session.project_id,
                composition_of(due.rules, session.name),
                surface=Surface.AUTO,
                decide=_once(due, self._clock),
            )
        except _Begun:
            self._settled.add(session.sid)
        except _AnotherSession:
            return
        except ServiceError as error:
            if error.code not in _PASSING:
                self._refused[session.sid] = due.rules.updated_at
                _log.warning("room %s gets no automatic egress: %s", session.sid, error.message)
        else:
            self._settled.add(session.sid)


class _Begun(Exception):
    """This session had its egress."""


class _AnotherSession(Exception):
    """The room was closed and opened again in between."""


def _once(due: _Due, clock: Clock) -> Decide:
    async def decide(tx: UnitOfWork, room_id: str) -> Egress | None:
        if room_id != due.session.sid:
            raise _AnotherSession
        if not await tx.auto_egress.begin(room_id, due.session.project_id, clock.now()):
            raise _Begun
        return None

    return decide


async def _due(tx: UnitOfWork, rules: AutoEgress, session: RoomSession) -> _Due | None:
    since: datetime | None = session.started_at
    if rules.min_participants > 0:
        since = enough_since(await tx.rooms.visits(session.sid), rules.min_participants)
    return None if since is None else _Due(rules, session, since + timedelta(seconds=rules.delay_seconds))
