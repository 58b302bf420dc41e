"""Recordings, which outlive the record of the egress that made them."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import bindparam, func, select

from adapters.db.egress_tables import recordings
from adapters.db.session import AnyRow, Session, execute, fetch_all, fetch_first
from server.domain.recording import Recording, RecordingPage
from server.ids import ProjectId

_r = recordings
_CHANGING = tuple(
    field.name
    for field in fields(Recording)
    if field.name not in {"id", "project_id", "egress_id", "created_at"}
)
_ID = _r.c.id == bindparam("p_id")
_PROJECT = _r.c.project_id == bindparam("p_project")

_GET = select(_r).where(_ID)
_GET_OF_PROJECT = _GET.where(_PROJECT)
_OF_EGRESS = select(_r).where(_PROJECT, _r.c.egress_id == bindparam("p_egress"), _r.c.composed_from.is_(None))
_SAVE = (
    _r.update().where(_ID).values({name: bindparam(f"v_{name}", type_=_r.c[name].type) for name in _CHANGING})
)

_COMPOSING = select(_r).where(_r.c.status == "STARTED", _r.c.composed_from.is_not(None))


def _listing(in_room: bool, in_state: bool) -> tuple[Any, Any]:
    """The page and the count over all pages."""
    where = [_PROJECT]
    if in_room:
        where.append(_r.c.room_name == bindparam("p_room"))
    if in_state:
        where.append(_r.c.status == bindparam("p_status"))
    page = (
        select(_r)
        .where(*where)
        .order_by(_r.c.created_at.desc(), _r.c.id.desc())
        .limit(bindparam("p_limit"))
        .offset(bindparam("p_offset"))
    )
    return page, select(func.count()).select_from(_r).where(*where)


_LISTINGS = {
    (in_room, in_state): _listing(in_room, in_state)
    for in_room in (False, True)
    for in_state in (False, True)
}


class SqlRecordings:
    """Implements `RecordingRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, recording: Recording) -> None:
        await execute(self._session, _r.insert(), asdict(recording))

    async def get(self, project_id: ProjectId | None, recording_id: str) -> Recording | None:
        """None also if it is another project's; `project_id=None` is for workers."""
        if project_id is None:
            row = await fetch_first(self._session, _GET, {"p_id": recording_id})
        else:
            row = await fetch_first(
                self._session, _GET_OF_PROJECT, {"p_id": recording_id, "p_project": project_id}
            )
        return None if row is None else _recording(row)

    async def of_egress(self, project_id: ProjectId, egress_id: str) -> Recording | None:
        row = await fetch_first(self._session, _OF_EGRESS, {"p_project": project_id, "p_egress": egress_id})
        return None if row is None else _recording(row)

    async def save(self, recording: Recording) -> None:
        row = asdict(recording)
        await execute(
            self._session, _SAVE, {"p_id": recording.id, **{f"v_{name}": row[name] for name in _CHANGING}}
        )

    async def composing(self) -> tuple[Recording, ...]:
        """Of all projects: compositions that have not ended."""
        return tuple(map(_recording, await fetch_all(self._session, _COMPOSING)))

    async def list(
        self,
        project_id: ProjectId,
        *,
        room_name: str | None = None,
        status: str | None = None,
        page: int = 1,
        size: int = 20,
    ) -> RecordingPage:
        """Newest first."""
        listing, count = _LISTINGS[room_name is not None, status is not None]
        where: dict[str, Any] = {"p_project": project_id}
        if room_name is not None:
            where["p_room"] = room_name
        if status is not None:
            where["p_status"] = status
        window = {**where, "p_limit": size, "p_offset": (page - 1) * size}
        rows, total = await self._session.run(
            lambda c: (c.execute(listing, window).all(), c.execute(count, where).scalar_one())
        )
        return RecordingPage(tuple(map(_recording, rows)), total)


def _recording(row: AnyRow) -> Recording:
    return Recording(**row._mapping)
