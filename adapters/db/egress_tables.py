"""The tables of egresses, recordings and automatic egress."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, text

from adapters.db.columns import JsonText, Moment
from adapters.db.tables import metadata

_UNFINISHED = text("status IN ('EGRESS_STARTING', 'EGRESS_ACTIVE', 'EGRESS_ENDING')")
_KEPT = text("deleted_at IS NULL")

# `plan` never changes. `orders` and `secrets` are sealed: they hold stream keys and credentials. `shown` is the status
# that follows from the state and the results, kept so that lists can be filtered by it.
egresses = Table(
    "egresses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("room_name", Text, nullable=False),
    Column("room_id", Text, nullable=False),
    Column("surface", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("file_type", Text, nullable=False),
    Column("plan", JsonText, nullable=False),
    Column("request", JsonText, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("recording_id", Text),
    Column("active_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("details", Text, nullable=False),
    Column("failing", JsonText),
    Column("paused", Text, nullable=False),
    Column("results", JsonText, nullable=False),
    Column("deleted_at", Moment),
    Column("shown", Text, nullable=False),
    Column("orders", LargeBinary, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Index(
        "ix_egresses_listing",
        "project_id",
        "created_at",
        "id",
        sqlite_where=_KEPT,
        postgresql_where=_KEPT,
    ),
    Index(
        "ix_egresses_room",
        "project_id",
        "room_name",
        "created_at",
        "id",
        sqlite_where=_KEPT,
        postgresql_where=_KEPT,
    ),
    Index("ix_egresses_running", "created_at", sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED),
)

# No foreign key to the egress: a recording outlives the record of what made it.
# One of each egress; what was composed of it later has its id too.
_RECORDED = text("composed_from IS NULL")
recordings = Table(
    "recordings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("egress_id", Text, nullable=False),
    Column("room_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("file_type", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("key", Text),
    Column("file_url", Text),
    Column("file_size", BigInteger),
    Column("duration_sec", Integer),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("manifest", JsonText),
    Column("tracks", Boolean, nullable=False),
    Column("composed_from", Text),
    Index(
        "ix_recordings_of_egress",
        "egress_id",
        unique=True,
        sqlite_where=_RECORDED,
        postgresql_where=_RECORDED,
    ),
    Index("ix_recordings_listing", "project_id", "created_at", "id"),
    Index("ix_recordings_listing_by_status", "project_id", "status", "created_at", "id"),
)

auto_egress = Table(
    "auto_egress",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id"), primary_key=True),
    Column("enabled", Boolean, nullable=False),
    Column("mode", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("quality", Text, nullable=False),
    Column("file_type", Text, nullable=False),
    Column("urls", LargeBinary),
    Column("min_participants", Integer, nullable=False),
    Column("delay_seconds", Integer, nullable=False),
    Column("room_name_pattern", Text, nullable=False),
    Column("updated_at", Moment),
)

# Room sessions that had their automatic egress; forgotten with the session.
auto_egress_begun = Table(
    "auto_egress_begun",
    metadata,
    Column("room_sid", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("begun_at", Moment, nullable=False),
)

# What sessions of rooms ask for; forgotten with the session.
room_egress = Table(
    "room_egress",
    metadata,
    Column("room_sid", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("room_name", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
)
