"""Answers kept per `Idempotency-Key`."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, or_, select

from adapters.db.session import AnyRow, Session, execute
from adapters.db.tables import idempotency_keys
from adapters.db.upsert import upsert
from server.ports.secret_box import SecretBox
from server.ports.unit_of_work import IDEMPOTENCY_KEPT, StoredReply

# A call that began and never ended (its process was killed) frees its key after this. Calls end within a minute, and an
# upload reserves its key only when its last byte is there.
RUNS_AT_MOST = timedelta(minutes=5)

_table = idempotency_keys
_THIS = and_(
    _table.c.project_id == bindparam("p_project"),
    _table.c.method == bindparam("p_method"),
    _table.c.key == bindparam("p_key"),
)
_insert = upsert(_table).values(
    project_id=bindparam("p_project"),
    method=bindparam("p_method"),
    key=bindparam("p_key"),
    fingerprint=bindparam("v_fingerprint"),
    reply=None,
    created_at=bindparam("v_now", type_=_table.c.created_at.type),
)
_RESERVE = _insert.on_conflict_do_update(
    index_elements=["project_id", "method", "key"],
    set_={
        "fingerprint": _insert.excluded.fingerprint,
        "reply": None,
        "created_at": _insert.excluded.created_at,
    },
    where=or_(
        _table.c.created_at <= bindparam("p_expired", type_=_table.c.created_at.type),
        and_(
            _table.c.reply.is_(None),
            _table.c.created_at <= bindparam("p_stuck", type_=_table.c.created_at.type),
        ),
    ),
).returning(_table.c.key)
_GET = select(_table.c.fingerprint, _table.c.reply).where(_THIS)
_FINISH = _table.update().where(_THIS).values(reply=bindparam("v_reply"))
_ABANDON = _table.delete().where(_THIS, _table.c.reply.is_(None))
_PURGE = _table.delete().where(_table.c.created_at < bindparam("p_before"))


class SqlIdempotency:
    """Implements `IdempotencyRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def begin(
        self, project_id: str, key: str, method: str, fingerprint: str, now: datetime
    ) -> StoredReply | None:
        """Reserves the key and returns None, or returns what is stored under it (younger than 24 h).

        Of concurrent calls one reserves; on PostgreSQL the others wait here for its transaction.
        """
        this = _this(project_id, key, method)
        times = {"v_now": now, "p_expired": now - IDEMPOTENCY_KEPT, "p_stuck": now - RUNS_AT_MOST}

        def reserve(connection: Connection) -> AnyRow | None:
            # Twice if the call that held the key gives it up between the two statements.
            while (
                connection.execute(_RESERVE, {**this, **times, "v_fingerprint": fingerprint}).first() is None
            ):
                if (stored := connection.execute(_GET, this).first()) is not None:
                    return stored
            return None

        row = await self._session.run(reserve)
        if row is None:
            return None
        if row.reply is None:
            return StoredReply(row.fingerprint, None)
        return StoredReply(
            row.fingerprint, self._box.open(row.reply, context=reply_context(project_id, method, key))
        )

    async def finish(self, project_id: str, key: str, method: str, reply: bytes) -> None:
        sealed = self._box.seal(reply, context=reply_context(project_id, method, key))
        await execute(self._session, _FINISH, {**_this(project_id, key, method), "v_reply": sealed})

    async def abandon(self, project_id: str, key: str, method: str) -> None:
        await execute(self._session, _ABANDON, _this(project_id, key, method))

    async def purge(self, *, before: datetime) -> int:
        return await execute(self._session, _PURGE, {"p_before": before})


def reply_context(project_id: str, method: str, key: str) -> str:
    return f"idempotency_keys|{project_id}/{method}/{key}|reply"


def _this(project_id: str, key: str, method: str) -> dict[str, str]:
    return {"p_project": project_id, "p_method": method, "p_key": key}
