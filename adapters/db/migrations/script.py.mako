"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from adapters.db.columns import JsonText, Moment
${imports if imports else ""}
revision = "${up_revision}"
down_revision: str | None = ${repr(down_revision).replace("'", chr(34))}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
