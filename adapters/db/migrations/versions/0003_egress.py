"""Egresses, recordings and the rules of automatic egress."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from adapters.db.columns import JsonText, Moment

revision = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

_KEPT = "deleted_at IS NULL"
_UNFINISHED = "status IN ('EGRESS_STARTING', 'EGRESS_ACTIVE', 'EGRESS_ENDING')"


def upgrade() -> None:
    _egresses()
    _recordings()
    _auto_egress()
    _workers()


def _egresses() -> None:
    op.create_table(
        "egresses",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("room_name", sa.Text(), nullable=False),
        sa.Column("room_id", sa.Text(), nullable=False),
        sa.Column("surface", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("file_type", sa.Text(), nullable=False),
        sa.Column("plan", JsonText(), nullable=False),
        sa.Column("request", JsonText(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("recording_id", sa.Text(), nullable=True),
        sa.Column("active_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("failing", JsonText(), nullable=True),
        sa.Column("paused", sa.Text(), nullable=False),
        sa.Column("results", JsonText(), nullable=False),
        sa.Column("deleted_at", Moment(), nullable=True),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("orders", sa.LargeBinary(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_egresses_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_egresses"),
    )
    _partial_index("egresses", "listing", ["project_id", "created_at", "id"], _KEPT)
    _partial_index("egresses", "room", ["project_id", "room_name", "created_at", "id"], _KEPT)
    _partial_index("egresses", "running", ["created_at"], _UNFINISHED)


def _recordings() -> None:
    op.create_table(
        "recordings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("egress_id", sa.Text(), nullable=False),
        sa.Column("room_name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("file_type", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("file_url", sa.Text(), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=True),
        sa.Column("duration_sec", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("manifest", JsonText(), nullable=True),
        sa.Column("tracks", sa.Boolean(), nullable=False),
        sa.Column("composed_from", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_recordings_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_recordings"),
    )
    recorded = sa.text("composed_from IS NULL")
    op.create_index(
        "ix_recordings_of_egress",
        "recordings",
        ["egress_id"],
        unique=True,
        sqlite_where=recorded,
        postgresql_where=recorded,
    )
    op.create_index("ix_recordings_listing", "recordings", ["project_id", "created_at", "id"])
    op.create_index(
        "ix_recordings_listing_by_status", "recordings", ["project_id", "status", "created_at", "id"]
    )


def _auto_egress() -> None:
    op.create_table(
        "auto_egress",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("file_type", sa.Text(), nullable=False),
        sa.Column("urls", sa.LargeBinary(), nullable=True),
        sa.Column("min_participants", sa.Integer(), nullable=False),
        sa.Column("delay_seconds", sa.Integer(), nullable=False),
        sa.Column("room_name_pattern", sa.Text(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_auto_egress_project_id"),
        sa.PrimaryKeyConstraint("project_id", name="pk_auto_egress"),
    )
    op.create_table(
        "auto_egress_begun",
        sa.Column("room_sid", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("begun_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("room_sid", name="pk_auto_egress_begun"),
    )
    # Who was in a room and when decides whether it gets an automatic egress.
    op.create_index("ix_room_visits_room", "room_visits", ["room_sid"])


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "kind", name="pk_workers"),
    )


def _partial_index(table: str, name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(f"ix_{table}_{name}", table, columns, sqlite_where=where, postgresql_where=where)
