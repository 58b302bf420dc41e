"""Egresses: their state, written by their owner, and their orders, given by the API."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields
from itertools import product
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, func, select

from adapters.db.egress_tables import egresses
from adapters.db.job_queue import CHANNEL
from adapters.db.session import AnyRow, Session, execute, fetch_all, fetch_first
from adapters.db.upsert import upsert
from server.domain.egress import Egress, EgressPage, EgressSecrets, EgressStatus, Orders, shown_status
from server.domain.json_form import from_json, to_json
from server.errors import Code, ServiceError
from server.ids import ProjectId
from server.ports.secret_box import SecretBox

T = TypeVar("T", Orders, EgressSecrets)

_e = egresses
_FIELDS = tuple(field.name for field in fields(Egress))
_COLUMNS = tuple(_e.c[name] for name in _FIELDS)
_CHANGING = (
    *(name for name in _FIELDS if name not in {"id", "project_id", "plan", "created_at"}),
    "shown",
)
_UNFINISHED = tuple(status.value for status in EgressStatus if not status.is_final)

_ID = _e.c.id == bindparam("p_id")
_VISIBLE = (_e.c.project_id == bindparam("p_project"), _e.c.deleted_at.is_(None))
_NEWEST = (_e.c.created_at.desc(), _e.c.id.desc())

_ADD = upsert(_e).on_conflict_do_nothing().returning(_e.c.id)
_GET = select(*_COLUMNS).where(_ID)
_GET_VISIBLE = _GET.where(*_VISIBLE)
_SAVE = (
    _e.update().where(_ID).values({name: bindparam(f"v_{name}", type_=_e.c[name].type) for name in _CHANGING})
)
_ORDERS = select(_e.c.orders.label("sealed")).where(_ID)
_SECRETS = select(_e.c.secrets.label("sealed")).where(_ID)
_GIVE = _e.update().where(_ID).values(orders=bindparam("v_orders"))
_NOTIFY = select(func.pg_notify(CHANNEL, ""))
# Written out, not bound: SQLite uses a partial index only for a condition it can see.
_RUNNING = select(*_COLUMNS).where(
    _e.c.status.in_([bindparam(None, s, literal_execute=True) for s in _UNFINISHED])
)


def egress_orders_context(egress_id: str) -> str:
    return f"egresses|{egress_id}|orders"


def egress_secrets_context(egress_id: str) -> str:
    return f"egresses|{egress_id}|secrets"


def _listing(in_room: bool, in_states: bool, as_shown: bool) -> tuple[Any, Any]:
    """The page and the count over all pages."""
    where = [*_VISIBLE]
    if in_room:
        where.append(_e.c.room_name == bindparam("p_room"))
    if in_states:
        where.append(_e.c.status.in_(bindparam("p_states", expanding=True)))
    if as_shown:
        where.append(_e.c.shown == bindparam("p_shown"))
    page = select(*_COLUMNS).where(*where).order_by(*_NEWEST).limit(bindparam("p_limit"))
    return page.offset(bindparam("p_offset")), select(func.count()).select_from(_e).where(*where)


_LISTINGS = {filters: _listing(*filters) for filters in product((False, True), repeat=3)}


class SqlEgresses:
    """Implements `EgressRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def add(self, egress: Egress, orders: Orders, secrets: EgressSecrets) -> None:
        """Raise ServiceError already_exists if the id is taken."""
        values = {
            **_row(egress),
            "orders": self._seal(orders, egress_orders_context(egress.id)),
            "secrets": self._seal(secrets, egress_secrets_context(egress.id)),
        }
        if await fetch_first(self._session, _ADD, values) is None:
            raise ServiceError(Code.ALREADY_EXISTS, f"egress {egress.id} already exists")

    async def get(self, project_id: ProjectId | None, egress_id: str, *, lock: bool = False) -> Egress | None:
        """None also if it is another project's or deleted; `project_id=None` is for workers and sees deleted ones too."""
        statement = _GET if project_id is None else _GET_VISIBLE
        where = {"p_id": egress_id} if project_id is None else {"p_id": egress_id, "p_project": project_id}
        row = await fetch_first(self._session, statement.with_for_update() if lock else statement, where)
        return None if row is None else _egress(row)

    async def save(self, egress: Egress) -> None:
        """Replaces the state: everything but orders, secrets and plan."""
        row = _row(egress)
        await execute(
            self._session, _SAVE, {"p_id": egress.id, **{f"v_{name}": row[name] for name in _CHANGING}}
        )

    async def orders(self, egress_id: str) -> Orders:
        return await self._opened(Orders, _ORDERS, egress_id, egress_orders_context(egress_id))

    async def give(self, egress_id: str, orders: Orders) -> None:
        """Replaces the orders and wakes their owner when the transaction commits; lock the egress first."""
        sealed = self._seal(orders, egress_orders_context(egress_id))

        def work(connection: Connection) -> None:
            connection.execute(_GIVE, {"p_id": egress_id, "v_orders": sealed})
            if connection.dialect.name == "postgresql":
                connection.execute(_NOTIFY)

        await self._session.run(work)

    async def secrets(self, egress_id: str) -> EgressSecrets:
        return await self._opened(EgressSecrets, _SECRETS, egress_id, egress_secrets_context(egress_id))

    async def list(
        self,
        project_id: ProjectId,
        *,
        room_name: str | None = None,
        statuses: Collection[EgressStatus] | None = None,
        shown_status: str | None = None,
        page: int = 1,
        size: int = 20,
    ) -> EgressPage:
        """Newest first, without deleted ones."""
        listing, count = _LISTINGS[room_name is not None, statuses is not None, shown_status is not None]
        where: dict[str, Any] = {"p_project": project_id}
        if room_name is not None:
            where["p_room"] = room_name
        if statuses is not None:
            where["p_states"] = [status.value for status in statuses]
        if shown_status is not None:
            where["p_shown"] = shown_status
        window = {**where, "p_limit": size, "p_offset": (page - 1) * size}
        rows, total = await self._session.run(
            lambda c: (c.execute(listing, window).all(), c.execute(count, where).scalar_one())
        )
        return EgressPage(tuple(map(_egress, rows)), total)

    async def running(self) -> tuple[Egress, ...]:
        """Of all projects: STARTING, ACTIVE and ENDING."""
        return tuple(map(_egress, await fetch_all(self._session, _RUNNING)))

    def _seal(self, value: Orders | EgressSecrets, context: str) -> bytes:
        return self._box.seal(json.dumps(to_json(value)).encode(), context=context)

    async def _opened(self, kind: type[T], statement: Any, egress_id: str, context: str) -> T:
        row = await fetch_first(self._session, statement, {"p_id": egress_id})
        if row is None:
            return kind()
        return from_json(kind, json.loads(self._box.open(row.sealed, context=context)))


def _row(egress: Egress) -> dict[str, Any]:
    row: dict[str, Any] = to_json(egress)
    return row | {"shown": shown_status(egress)}


def _egress(row: AnyRow) -> Egress:
    return from_json(Egress, row._mapping)
