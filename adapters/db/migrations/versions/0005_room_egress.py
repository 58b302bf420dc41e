"""What rooms ask to have recorded of their participants and tracks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from adapters.db.columns import Moment

revision = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "room_egress",
        sa.Column("room_sid", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("room_name", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("room_sid", name="pk_room_egress"),
    )
