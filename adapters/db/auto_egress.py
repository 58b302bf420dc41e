"""The rules by which rooms are recorded of themselves, and which sessions of rooms already were."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select

from adapters.db.egress_tables import auto_egress, auto_egress_begun
from adapters.db.session import AnyRow, Session, execute, fetch_all, fetch_first
from adapters.db.upsert import upsert
from server.domain.recording import AutoEgress
from server.ids import ProjectId
from server.ports.secret_box import SecretBox

_a = auto_egress
_GET = select(_a).where(_a.c.project_id == bindparam("p_project"))
_ENABLED = select(_a).where(_a.c.enabled)
_BEGIN = upsert(auto_egress_begun).on_conflict_do_nothing().returning(auto_egress_begun.c.room_sid)


def _save() -> Any:
    statement = upsert(_a)
    changing = [column.name for column in _a.c if column.name != "project_id"]
    return statement.on_conflict_do_update(
        index_elements=["project_id"], set_={name: statement.excluded[name] for name in changing}
    )


_SAVE = _save()


def auto_egress_urls_context(project_id: str) -> str:
    return f"auto_egress|{project_id}|urls"


class SqlAutoEgress:
    """Implements `AutoEgressRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def get(self, project_id: ProjectId) -> AutoEgress | None:
        row = await fetch_first(self._session, _GET, {"p_project": project_id})
        return None if row is None else self._rules(row)

    async def save(self, rules: AutoEgress) -> None:
        sealed = None
        if rules.urls:
            sealed = self._box.seal(
                json.dumps(rules.urls).encode(), context=auto_egress_urls_context(rules.project_id)
            )
        await execute(self._session, _SAVE, {**asdict(rules), "urls": sealed})

    async def enabled(self) -> tuple[AutoEgress, ...]:
        """Of all projects."""
        return tuple(map(self._rules, await fetch_all(self._session, _ENABLED)))

    async def begin(self, room_sid: str, project_id: ProjectId, now: datetime) -> bool:
        """Notes that this session of a room had its automatic egress; False if it was noted already (AE-13)."""
        values = {"room_sid": room_sid, "project_id": project_id, "begun_at": now}
        return await fetch_first(self._session, _BEGIN, values) is not None

    def _rules(self, row: AnyRow) -> AutoEgress:
        values = dict(row._mapping)
        urls: list[str] = []
        if values["urls"] is not None:
            urls = json.loads(
                self._box.open(values["urls"], context=auto_egress_urls_context(row.project_id))
            )
        return AutoEgress(**values | {"urls": tuple(urls)})
