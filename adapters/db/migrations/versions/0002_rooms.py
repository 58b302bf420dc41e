"""What is remembered of LiveKit's rooms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from adapters.db.columns import Moment

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "room_sessions",
        sa.Column("sid", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.Column("enable_recording", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("sid", name="pk_room_sessions"),
    )
    _partial_index("room_sessions", "open", ["project_id", "name"], "finished_at IS NULL")
    op.create_index("ix_room_sessions_finished", "room_sessions", ["finished_at"])

    op.create_table(
        "room_visits",
        sa.Column("sid", sa.Text(), nullable=False),
        sa.Column("room_sid", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("person", sa.Boolean(), nullable=False),
        sa.Column("joined_at", Moment(), nullable=False),
        sa.Column("left_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("sid", name="pk_room_visits"),
    )
    _partial_index("room_visits", "here", ["room_sid"], "left_at IS NULL")
    op.create_index("ix_room_visits_left", "room_visits", ["left_at"])

    op.create_table(
        "room_publications",
        sa.Column("sid", sa.Text(), nullable=False),
        sa.Column("room_sid", sa.Text(), nullable=False),
        sa.Column("participant_sid", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("unpublished_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("sid", name="pk_room_publications"),
    )
    op.create_index("ix_room_publications_visit", "room_publications", ["participant_sid"])
    _partial_index("room_publications", "on", ["room_sid"], "unpublished_at IS NULL")
    op.create_index("ix_room_publications_unpublished", "room_publications", ["unpublished_at"])


def _partial_index(table: str, name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(f"ix_{table}_{name}", table, columns, sqlite_where=where, postgresql_where=where)
