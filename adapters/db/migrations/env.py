"""Alembic's environment: runs on the connection, in the transaction, that `adapters.db.migrate` opened."""

from __future__ import annotations

from alembic import context

from adapters.db.schema import metadata


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """On SQLite the job engine's own tables live in the same file."""
    return kind != "table" or name in metadata.tables


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    include_name=_is_ours,
)
with context.begin_transaction():
    context.run_migrations()
