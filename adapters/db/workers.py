"""Workers that live and what they can carry."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, func, select

from adapters.db.job_queue import MICROS, clock_of
from adapters.db.session import Session, execute
from adapters.db.tables import workers
from adapters.db.upsert import upsert

_w = workers
_FORGOTTEN_AFTER_SEC = 86_400
_WITHDRAW = _w.delete().where(_w.c.owner == bindparam("p_owner"))


class SqlWorkers:
    """Implements `WorkerRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def offer(self, owner: str, kind: str, weight: float) -> None:
        """Says that this worker lives and how much of a kind it carries; again and again while that holds."""

        def work(connection: Connection) -> None:
            now, clock = clock_of(connection)
            values: dict[str, Any] = {"owner": owner, "kind": kind, "weight": weight}
            row = upsert(_w).values(**{name: bindparam(f"v_{name}") for name in values}, seen_at=now)
            row = row.on_conflict_do_update(
                index_elements=["owner", "kind"],
                set_={name: row.excluded[name] for name in ("weight", "seen_at")},
            )
            connection.execute(row, {**{f"v_{name}": one for name, one in values.items()}, **clock})
            old = _w.c.seen_at < now - _FORGOTTEN_AFTER_SEC * MICROS
            connection.execute(_w.delete().where(old), clock)

        await self._session.run(work)

    async def withdraw(self, owner: str) -> None:
        await execute(self._session, _WITHDRAW, {"p_owner": owner})

    async def offered(self, kind: str, *, within_sec: float) -> float | None:
        """How much of a kind the workers carry together that were heard of lately; None if there is none."""

        def look(connection: Connection) -> float | None:
            now, clock = clock_of(connection)
            lately = _w.c.seen_at > now - bindparam("p_within", type_=BigInteger)
            total = select(func.sum(_w.c.weight)).where(_w.c.kind == bindparam("p_kind"), lately)
            found = connection.execute(
                total, {"p_kind": kind, "p_within": round(within_sec * MICROS), **clock}
            ).scalar_one()
            return None if found is None else float(found)

        return await self._session.run(look)
