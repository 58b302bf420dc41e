"""Webhooks of a single egress, signed with a LiveKit-style key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("egress_id", sa.Text(), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("signing_key", sa.Text(), nullable=True))
