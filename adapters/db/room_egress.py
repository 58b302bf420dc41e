"""What sessions of rooms ask to have recorded of their participants and tracks."""

from __future__ import annotations

from sqlalchemy import bindparam, exists, select

from adapters.db.egress_tables import room_egress
from adapters.db.session import AnyRow, Session, execute, fetch_all
from adapters.db.tables import room_sessions
from adapters.db.upsert import upsert
from server.domain.egress import RoomEgress
from server.ids import ProjectId
from server.ports.secret_box import SecretBox

_e = room_egress
_ADD = upsert(_e).on_conflict_do_nothing()
_REMOVE = _e.delete().where(_e.c.room_sid == bindparam("p_room"))
# A session is not known here before LiveKit's news of it have come.
_OPEN = select(_e).where(
    ~exists().where(room_sessions.c.sid == _e.c.room_sid, room_sessions.c.finished_at.is_not(None))
)


def room_egress_context(room_sid: str) -> str:
    return f"room_egress|{room_sid}|body"


class SqlRoomEgress:
    """Implements `RoomEgressRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def add(self, kept: RoomEgress) -> None:
        """The first for a session counts."""
        await execute(
            self._session,
            _ADD,
            {
                "room_sid": kept.room_sid,
                "project_id": kept.project_id,
                "room_name": kept.room_name,
                "body": self._box.seal(kept.body, context=room_egress_context(kept.room_sid)),
                "created_at": kept.created_at,
            },
        )

    async def remove(self, room_sid: str) -> None:
        await execute(self._session, _REMOVE, {"p_room": room_sid})

    async def open(self) -> tuple[RoomEgress, ...]:
        """Of all projects, of sessions that have not ended."""
        return tuple(map(self._kept, await fetch_all(self._session, _OPEN)))

    def _kept(self, row: AnyRow) -> RoomEgress:
        return RoomEgress(
            room_sid=row.room_sid,
            project_id=ProjectId(row.project_id),
            room_name=row.room_name,
            body=self._box.open(row.body, context=room_egress_context(row.room_sid)),
            created_at=row.created_at,
        )
