"""The tables and their indexes: what Alembic's migrations must add up to."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from adapters.db.columns import JsonText, Moment, big_serial

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("s3", JsonText),
    Column("s3_secrets", LargeBinary),
    Column("plan", JsonText, nullable=False),
    Index("ix_projects_created", "created_at", "id"),
)

project_usage = Table(
    "project_usage",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id"), primary_key=True),
    Column("conversion_jobs", BigInteger, nullable=False),
    Column("conversion_seconds", BigInteger, nullable=False),
    Column("conversion_cents", BigInteger, nullable=False),
    Column("categorization_jobs", BigInteger, nullable=False),
    Column("moderation_jobs", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("baxstream", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("revoked_at", Moment),
    Index("ix_api_keys_project", "project_id", "created_at"),
)

livekit_keys = Table(
    "livekit_keys",
    metadata,
    Column("api_key", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("api_secret", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("ix_livekit_keys_project", "project_id", "created_at"),
)

_JOB_WAITS = text("status = 'PENDING'")
_JOB_IS_DELAYED = text("status = 'PENDING' AND due_at IS NOT NULL")
_JOB_RUNS = text("status = 'PROCESSING'")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("spec", JsonText, nullable=False),
    Column("metadata", JsonText),
    Column("secrets", LargeBinary),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text),
    Column("progress", JsonText),
    Column("result", JsonText, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("playable_at", Moment),
    Column("completed_at", Moment),
    Column("failed_at", Moment),
    Column("updated_at", Moment),
    # The engine's own: not before `due_at`; `beat` counts heartbeats of the owner, `losses` owners that died.
    Column("due_at", Moment),
    Column("beat", BigInteger, nullable=False, server_default=text("0")),
    Column("losses", Integer, nullable=False, server_default=text("0")),
    Index("ix_jobs_listing", "project_id", "kind", "created_at", "id"),
    Index("ix_jobs_listing_by_status", "project_id", "kind", "status", "created_at", "id"),
    Index(
        "ix_jobs_waiting",
        "kind",
        "project_id",
        "created_at",
        "id",
        sqlite_where=_JOB_WAITS,
        postgresql_where=_JOB_WAITS,
    ),
    Index("ix_jobs_delayed", "due_at", sqlite_where=_JOB_IS_DELAYED, postgresql_where=_JOB_IS_DELAYED),
    Index("ix_jobs_running", "kind", sqlite_where=_JOB_RUNS, postgresql_where=_JOB_RUNS),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, ForeignKey("projects.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JsonText, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    # No foreign key: the endpoint of an egress serves its last events, whatever becomes of the row.
    Column("egress_id", Text),
    Column("signing_key", Text),
    Index("ix_webhook_endpoints_project", "project_id", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("ix_events_created", "created_at"),
)

_PENDING = text("state = 'PENDING'")
_LEASED = text("lease_until IS NOT NULL")

# No foreign key to the endpoint: one deleted while an event is recorded must not fail the state change it tells of.
deliveries = Table(
    "deliveries",
    metadata,
    Column("sequence", big_serial(), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("event_id", Text, ForeignKey("events.id"), nullable=False, index=True),
    Column("subject", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", Moment),
    # The oldest unfinished delivery of a subject; due deliveries of one endpoint; the next one due of all; in flight.
    Index(
        "ix_deliveries_head",
        "endpoint_id",
        "subject",
        "sequence",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
    Index(
        "ix_deliveries_due",
        "endpoint_id",
        "next_attempt_at",
        "sequence",
        sqlite_where=_PENDING,
        postgresql_where=_PENDING,
    ),
    Index("ix_deliveries_next", "next_attempt_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index(
        "ix_deliveries_leased", "endpoint_id", "lease_until", sqlite_where=_LEASED, postgresql_where=_LEASED
    ),
    Index("ix_deliveries_replay", "endpoint_id", "created_at"),
    Index("ix_deliveries_created", "created_at"),
    # Without it SQLite may give a deleted row's number to a new one, which would break the order.
    sqlite_autoincrement=True,
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("sequence", big_serial(), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("delivery_id", Text, nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    Column("latency_ms", Integer, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("ix_delivery_attempts_project", "project_id", "sequence"),
    Index("ix_delivery_attempts_endpoint", "endpoint_id", "sequence"),
    Index("ix_delivery_attempts_created", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("method", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("reply", LargeBinary),
    Column("created_at", Moment, nullable=False),
    Index("ix_idempotency_keys_created", "created_at"),
)

_OPEN = text("finished_at IS NULL")
_HERE = text("left_at IS NULL")
_ON = text("unpublished_at IS NULL")

room_sessions = Table(
    "room_sessions",
    metadata,
    Column("sid", Text, primary_key=True),
    # No foreign key: LiveKit may know rooms of a project that this database does not.
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("enable_recording", Boolean),
    Index("ix_room_sessions_open", "project_id", "name", sqlite_where=_OPEN, postgresql_where=_OPEN),
    Index("ix_room_sessions_finished", "finished_at"),
)

room_visits = Table(
    "room_visits",
    metadata,
    Column("sid", Text, primary_key=True),
    Column("room_sid", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("person", Boolean, nullable=False),
    Column("joined_at", Moment, nullable=False),
    Column("left_at", Moment),
    Index("ix_room_visits_room", "room_sid"),
    Index("ix_room_visits_here", "room_sid", sqlite_where=_HERE, postgresql_where=_HERE),
    Index("ix_room_visits_left", "left_at"),
)

# `announced` is false while the participant is not known yet.
room_publications = Table(
    "room_publications",
    metadata,
    Column("sid", Text, primary_key=True),
    Column("room_sid", Text, nullable=False),
    Column("participant_sid", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("announced", Boolean, nullable=False),
    Column("unpublished_at", Moment),
    Index("ix_room_publications_visit", "participant_sid"),
    Index("ix_room_publications_on", "room_sid", sqlite_where=_ON, postgresql_where=_ON),
    Index("ix_room_publications_unpublished", "unpublished_at"),
)

# One row, sealed with the key in use: a start with the wrong keys fails at once instead of at the first job.
secret_canary = Table(
    "secret_canary",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("weight", Float, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)
