"""All tables together: what Alembic's migrations must add up to."""

from __future__ import annotations

from sqlalchemy import MetaData

import adapters.db.egress_tables  # noqa: F401 - its tables belong to the same metadata
from adapters.db import tables

metadata: MetaData = tables.metadata
