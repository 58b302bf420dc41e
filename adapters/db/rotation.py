"""Checks at start that the secret keys fit the database, and seals stored secrets again under a new key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Table, and_, bindparam, or_, select

from adapters.db.auto_egress import auto_egress_urls_context
from adapters.db.egress_tables import auto_egress, egresses, room_egress
from adapters.db.egresses import egress_orders_context, egress_secrets_context
from adapters.db.idempotency import reply_context
from adapters.db.jobs import job_secrets_context
from adapters.db.projects import livekit_secret_context, s3_secrets_context
from adapters.db.room_egress import room_egress_context
from adapters.db.session import AnyRow
from adapters.db.tables import (
    idempotency_keys,
    jobs,
    livekit_keys,
    projects,
    secret_canary,
    webhook_endpoints,
)
from adapters.db.upsert import upsert
from adapters.db.webhooks import endpoint_secrets_context
from server.ports.secret_box import SecretBox, SecretsUnreadable

if TYPE_CHECKING:
    from adapters.db.unit_of_work import SqlDatabase

BATCH = 200

_CANARY_CONTEXT = "secret_canary|1|sealed"
_CANARY = b"the keys fit"
_GET_CANARY = select(secret_canary.c.sealed).where(secret_canary.c.id == 1)
_ADD_CANARY = upsert(secret_canary).on_conflict_do_nothing()
_SET_CANARY = secret_canary.update().where(secret_canary.c.id == 1).values(sealed=bindparam("v_sealed"))

# Every sealed column, and the context that its values are bound to.
_SEALED: tuple[tuple[Column[Any], Callable[[AnyRow], str]], ...] = (
    (projects.c.s3_secrets, lambda row: s3_secrets_context(row.id)),
    (livekit_keys.c.api_secret, lambda row: livekit_secret_context(row.api_key)),
    (webhook_endpoints.c.secrets, lambda row: endpoint_secrets_context(row.id)),
    (jobs.c.secrets, lambda row: job_secrets_context(row.id)),
    (egresses.c.orders, lambda row: egress_orders_context(row.id)),
    (egresses.c.secrets, lambda row: egress_secrets_context(row.id)),
    (auto_egress.c.urls, lambda row: auto_egress_urls_context(row.project_id)),
    (room_egress.c.body, lambda row: room_egress_context(row.room_sid)),
    (idempotency_keys.c.reply, lambda row: reply_context(row.project_id, row.method, row.key)),
)


async def check_canary(database: SqlDatabase) -> None:
    """Raise SecretsUnreadable with what to do, when no configured key opens this database's secrets."""
    stored = await _stored_canary(database)
    try:
        database.secret_box.open(stored, context=_CANARY_CONTEXT)
    except SecretsUnreadable as error:
        raise SecretsUnreadable(
            f"the secrets stored in this database cannot be opened: {error}. Put the key that they were sealed with "
            "back into BAX_SECRET_KEYS (or its file into the data directory)"
        ) from error


async def _stored_canary(database: SqlDatabase) -> bytes:
    async with database.read() as tx:
        known: bytes | None = await tx.run_sync(lambda connection: connection.execute(_GET_CANARY).scalar())
    if known is not None:
        return known
    fresh = database.secret_box.seal(_CANARY, context=_CANARY_CONTEXT)
    async with database.begin() as tx:
        await tx.run_sync(lambda connection: connection.execute(_ADD_CANARY, {"id": 1, "sealed": fresh}))
        # Another process may have been first.
        stored: bytes = await tx.run_sync(lambda connection: connection.execute(_GET_CANARY).scalar_one())
        await tx.commit()
    return stored


async def reencrypt(database: SqlDatabase) -> int:
    """Seals every stored secret with the first configured key; how many changed.

    Restartable and safe beside running servers, which need the new key in their list first. The canary comes last:
    until then a start without the old key still fails.
    """
    changed = 0
    for column, context in _SEALED:
        after: tuple[Any, ...] | None = None
        while True:
            async with database.begin() as tx:
                step, after = await tx.run_sync(_batch(database.secret_box, column, context, after))
                await tx.commit()
            changed += step
            if after is None:
                break
    async with database.begin() as tx:
        sealed = database.secret_box.seal(_CANARY, context=_CANARY_CONTEXT)
        await tx.run_sync(lambda connection: connection.execute(_SET_CANARY, {"v_sealed": sealed}))
        await tx.commit()
    return changed


def _batch(
    box: SecretBox, column: Column[Any], context: Callable[[AnyRow], str], after: tuple[Any, ...] | None
) -> Callable[[Connection], tuple[int, tuple[Any, ...] | None]]:
    """Work on the next rows in key order; gives how many changed and where to go on, None at the end."""
    table: Table = column.table
    keys = tuple(table.primary_key.columns)

    def work(connection: Connection) -> tuple[int, tuple[Any, ...] | None]:
        rows = select(*keys, column.label("sealed")).where(column.is_not(None)).order_by(*keys).limit(BATCH)
        if after is not None:
            rows = rows.where(_beyond(keys, after))
        changed = 0
        found = connection.execute(rows.with_for_update()).all()
        for row in found:
            if not box.is_current(row.sealed):
                fresh = box.seal(box.open(row.sealed, context=context(row)), context=context(row))
                this = and_(*(key == getattr(row, key.name) for key in keys))
                connection.execute(table.update().where(this).values({column.name: fresh}))
                changed += 1
        return changed, tuple(found[-1][: len(keys)]) if len(found) == BATCH else None

    return work


def _beyond(keys: tuple[Column[Any], ...], after: tuple[Any, ...]) -> Any:
    """`keys > after` in lexicographic order."""
    return or_(
        *(
            and_(*(keys[i] == after[i] for i in range(depth)), keys[depth] > after[depth])
            for depth in range(len(keys))
        )
    )
