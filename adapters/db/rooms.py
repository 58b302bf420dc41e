"""What is remembered of LiveKit's rooms, their participants and tracks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, Connection, Table, bindparam, exists, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from adapters.db.columns import Moment
from adapters.db.egress_tables import auto_egress_begun, room_egress
from adapters.db.session import AnyRow, Session, execute, fetch_all
from adapters.db.tables import room_publications, room_sessions, room_visits
from adapters.db.upsert import upsert
from server.domain.room import OpenRoom, Publication, RoomMemory, RoomScope, RoomSession, Visit
from server.ids import ProjectId

T = TypeVar("T", RoomSession, Visit, Publication)

_r, _v, _p = room_sessions, room_visits, room_publications
_SESSION_COLUMNS = tuple(_r.c[name] for name in RoomSession.__dataclass_fields__)


def _among(column: Column[Any], name: str) -> Any:
    return column.in_(bindparam(name, expanding=True))


# Not rows: the room may not be there yet. Taken in the order of the keys, so that two batches cannot wait for each other.
_LOCK = select(
    func.pg_advisory_xact_lock(func.unnest(bindparam("p_keys", type_=ARRAY(BigInteger))).column_valued("key"))
)
_VISITS = select(_v).where(
    or_(_among(_v.c.sid, "p_visits"), (_among(_v.c.room_sid, "p_finishing")) & _v.c.left_at.is_(None))
)
_NOT_OVER = or_(_p.c.unpublished_at.is_(None), _p.c.announced.is_(False))
_PUBLICATIONS = select(_p).where(
    or_(
        _among(_p.c.sid, "p_publications"),
        _among(_p.c.participant_sid, "p_visits") & _NOT_OVER,
        _among(_p.c.room_sid, "p_finishing") & _p.c.unpublished_at.is_(None),
    )
)
_SESSIONS = select(*_SESSION_COLUMNS).where(_among(_r.c.sid, "p_rooms"))

_OPEN_SESSIONS = select(*_SESSION_COLUMNS).where(_r.c.finished_at.is_(None))
_HERE = select(_v).where(_v.c.left_at.is_(None))
_PEOPLE = (
    select(func.count())
    .where(_v.c.room_sid == _r.c.sid, _v.c.left_at.is_(None), _v.c.person)
    .correlate(_r)
    .scalar_subquery()
)
_OPEN_ROOMS = select(*_SESSION_COLUMNS, _PEOPLE.label("people")).where(
    _r.c.finished_at.is_(None), _among(_r.c.project_id, "p_projects")
)
_VISITS_OF_ROOM = select(_v).where(_v.c.room_sid == bindparam("p_room"))
_ON = select(_p).where(_p.c.unpublished_at.is_(None))

_SETTINGS = select(_r.c.sid, _r.c.enable_recording).where(
    _among(_r.c.sid, "p_sids"), _r.c.enable_recording.is_not(None)
)
_SETTLE = (
    _r.update()
    .where(_r.c.sid == bindparam("p_sid"), _r.c.enable_recording.is_(None))
    .values(enable_recording=bindparam("v_allowed"))
)

_BEFORE = bindparam("p_before", type_=Moment)
_OVER = select(_r.c.sid).where(_r.c.finished_at < _BEFORE)
_PURGE_PARTS = (
    _p.delete().where(or_(_p.c.room_sid.in_(_OVER), _p.c.unpublished_at < _BEFORE)),
    _v.delete().where(or_(_v.c.room_sid.in_(_OVER), _v.c.left_at < _BEFORE)),
    auto_egress_begun.delete().where(auto_egress_begun.c.room_sid.in_(_OVER)),
    # Of a room that came and went without our hearing of it there is no session.
    room_egress.delete().where(
        room_egress.c.created_at < _BEFORE,
        ~exists().where(_r.c.sid == room_egress.c.room_sid, _r.c.finished_at.is_(None)),
    ),
)
_PURGE_SESSIONS = _r.delete().where(_r.c.finished_at < _BEFORE)


def _save(table: Table, *changing: str) -> Any:
    statement = upsert(table)
    return statement.on_conflict_do_update(
        index_elements=["sid"], set_={name: statement.excluded[name] for name in changing}
    )


_SAVES = (
    (_save(_r, "finished_at"), "rooms"),
    (_save(_v, "left_at"), "visits"),
    (_save(_p, "announced", "unpublished_at"), "publications"),
)


class SqlRooms:
    """Implements `RoomRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def recall(self, scope: RoomScope) -> RoomMemory:
        """Locks the rooms of `scope` until the transaction ends, whether they are known or not."""
        return await self._session.run(lambda connection: _recall(connection, scope))

    async def remember(self, changed: RoomMemory) -> None:
        """Adds rows or replaces those of the same sid."""

        def save(connection: Connection) -> None:
            for statement, field in _SAVES:
                if rows := [asdict(row) for row in getattr(changed, field).values()]:
                    connection.execute(statement, rows)

        await self._session.run(save)

    async def present(self) -> RoomMemory:
        """Everything that has not ended yet, for a read unit of work."""

        def look(connection: Connection) -> RoomMemory:
            return RoomMemory(
                _by_sid(RoomSession, connection.execute(_OPEN_SESSIONS).all()),
                _by_sid(Visit, connection.execute(_HERE).all()),
                _by_sid(Publication, connection.execute(_ON).all()),
            )

        return await self._session.run(look)

    async def open_rooms(self, project_ids: Sequence[ProjectId]) -> tuple[OpenRoom, ...]:
        """Of these projects."""
        rows = await fetch_all(self._session, _OPEN_ROOMS, {"p_projects": list(project_ids)})
        names = RoomSession.__dataclass_fields__
        return tuple(
            OpenRoom(RoomSession(**{name: row._mapping[name] for name in names}), row.people) for row in rows
        )

    async def visits(self, room_sid: str) -> tuple[Visit, ...]:
        """All of one session of a room, those that have ended too."""
        rows = await fetch_all(self._session, _VISITS_OF_ROOM, {"p_room": room_sid})
        return tuple(Visit(**row._mapping) for row in rows)

    async def recording_settings(self, sids: Sequence[str]) -> Mapping[str, bool]:
        """Whether rooms may be recorded (B-46), without those for which nobody has said."""
        rows = await fetch_all(self._session, _SETTINGS, {"p_sids": list(sids)})
        return {row.sid: row.enable_recording for row in rows}

    async def settle_recording(self, sid: str, *, allowed: bool) -> None:
        """For a known room; the first to say wins."""
        await execute(self._session, _SETTLE, {"p_sid": sid, "v_allowed": allowed})

    async def purge(self, *, before: datetime) -> int:
        """Forgets what ended before that; how many rooms."""

        def forget(connection: Connection) -> int:
            for statement in _PURGE_PARTS:
                connection.execute(statement, {"p_before": before})
            return connection.execute(_PURGE_SESSIONS, {"p_before": before}).rowcount

        return await self._session.run(forget)


def _recall(connection: Connection, scope: RoomScope) -> RoomMemory:
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"p_keys": _lock_keys(scope.rooms)})
    asked = {
        "p_visits": list(scope.visits),
        "p_finishing": list(scope.finishing),
    }
    visits = _by_sid(Visit, connection.execute(_VISITS, asked).all())
    asked |= {"p_visits": list(visits.keys() | scope.visits), "p_publications": list(scope.publications)}
    publications = _by_sid(Publication, connection.execute(_PUBLICATIONS, asked).all())
    rooms = scope.rooms | {visit.room_sid for visit in visits.values()}
    sessions = _by_sid(RoomSession, connection.execute(_SESSIONS, {"p_rooms": list(rooms)}).all())
    return RoomMemory(sessions, visits, publications)


def _lock_keys(sids: Collection[str]) -> list[int]:
    digests = (hashlib.blake2b(f"room|{sid}".encode(), digest_size=8).digest() for sid in sids)
    return sorted(int.from_bytes(digest, signed=True) for digest in digests)


def _by_sid(kind: type[T], rows: Sequence[AnyRow]) -> dict[str, T]:
    return {row.sid: kind(**row._mapping) for row in rows}
