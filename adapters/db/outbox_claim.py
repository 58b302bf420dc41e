"""Which deliveries a relay may send now: in order per subject, a few per endpoint, each by one relay only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, literal_column, or_, select
from sqlalchemy.sql import ColumnElement, FromClause

from adapters.db.columns import Moment
from adapters.db.session import AnyRow
from adapters.db.tables import deliveries, events, webhook_endpoints
from server.domain.webhook import HOLDING_ATTEMPTS, Delivery, DeliveryState, NewEvent
from server.ids import EventId, ProjectId

_d = deliveries
_rival = deliveries.alias("rival")
_NOW = bindparam("p_now", type_=Moment)


def _is_pending(table: FromClause) -> ColumnElement[bool]:
    # A literal: with a parameter the planners cannot know that the partial indexes apply.
    return table.c.state == literal_column(f"'{DeliveryState.PENDING.value}'")


def _oldest_of_subject(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    # Scalar subqueries, not EXISTS: PostgreSQL turns that into a join over the whole backlog when its statistics are
    # old.
    return (
        select(func.min(_rival.c.sequence))
        .where(
            _rival.c.endpoint_id == _d.c.endpoint_id,
            _rival.c.subject == _d.c.subject,
            _is_pending(_rival),
            *conditions,
        )
        .scalar_subquery()
    )


_HOLDS = _rival.c.attempts < HOLDING_ATTEMPTS
# What is due goes before what came later even where it no longer holds it up: one of a subject at a time, in order.
_IS_HEAD = _d.c.sequence == _oldest_of_subject(or_(_HOLDS, _rival.c.next_attempt_at <= _NOW))
_IS_FREE = or_(_d.c.attempts >= HOLDING_ATTEMPTS, _d.c.sequence == _oldest_of_subject(_HOLDS))
_DUE = and_(
    _is_pending(_d), _d.c.next_attempt_at <= _NOW, or_(_d.c.lease_until.is_(None), _d.c.lease_until <= _NOW)
)
_ANY_DUE = (
    select(literal_column("1"))
    .where(_d.c.endpoint_id == webhook_endpoints.c.id, _DUE)
    .limit(1)
    .correlate(webhook_endpoints)
    .scalar_subquery()
)

# Locked rows serialise the relays per endpoint: each sees the others' leases before it counts and picks, and goes on
# to another endpoint meanwhile. In random order, so that no endpoint is always last when there are many.
_LOCK_ENDPOINTS = (
    select(webhook_endpoints.c.id)
    .where(webhook_endpoints.c.id.not_in(bindparam("p_skip", expanding=True)), _ANY_DUE.is_not(None))
    .order_by(func.random())
    .limit(bindparam("p_limit"))
    .with_for_update(skip_locked=True)
)
_IN_FLIGHT = select(_d.c.subject).where(_d.c.endpoint_id == bindparam("p_endpoint"), _d.c.lease_until > _NOW)
# Not only heads are in flight: a replay re-opens older ones.
_picked = (
    select(
        _d.c.id,
        _d.c.project_id,
        _d.c.endpoint_id,
        _d.c.event_id,
        _d.c.subject,
        _d.c.sequence,
        _d.c.attempts,
        _d.c.next_attempt_at,
        _d.c.created_at,
    )
    .where(
        _d.c.endpoint_id == bindparam("p_endpoint"),
        _DUE,
        _d.c.subject.not_in(bindparam("p_in_flight", expanding=True)),
        _IS_HEAD,
    )
    .order_by(_d.c.next_attempt_at, _d.c.sequence)
    .limit(bindparam("p_room"))
    .subquery("picked")
)
_PICK = select(
    _picked, events.c.name, events.c.family, events.c.body, events.c.created_at.label("event_created_at")
).join(events, events.c.id == _picked.c.event_id)
_LEASE = (
    _d.update()
    .where(_d.c.sequence == bindparam("p_sequence"))
    .values(lease_owner=bindparam("v_owner"), lease_until=bindparam("v_until", type_=Moment))
)
_NEXT_FREE = (
    select(_d.c.next_attempt_at)
    .where(_is_pending(_d), _d.c.lease_until.is_(None), _IS_FREE)
    .order_by(_d.c.next_attempt_at)
    .limit(1)
)
_NEXT_LEASE_END = select(func.min(_d.c.lease_until, type_=Moment)).where(_d.c.lease_until.is_not(None))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a relay asks for: see `OutboxRepository.claim_due`; leased until `until`."""

    owner: str
    now: datetime
    until: datetime
    limit: int
    per_endpoint: int
    skip: tuple[str, ...]


def claim(connection: Connection, wanted: Claim) -> tuple[Delivery, ...]:
    """Leases up to `limit` due deliveries to the owner."""
    now = {"p_now": wanted.now}
    endpoints = connection.execute(
        _LOCK_ENDPOINTS, {**now, "p_limit": wanted.limit, "p_skip": wanted.skip}
    ).scalars()
    picked: list[AnyRow] = []
    for endpoint_id in endpoints.all():
        this = {**now, "p_endpoint": endpoint_id}
        in_flight = connection.execute(_IN_FLIGHT, this).scalars().all()
        room = min(wanted.per_endpoint - len(in_flight), wanted.limit - len(picked))
        if room > 0:
            picked += connection.execute(_PICK, {**this, "p_room": room, "p_in_flight": in_flight})
    if picked:
        leases = [
            {"p_sequence": row.sequence, "v_owner": wanted.owner, "v_until": wanted.until} for row in picked
        ]
        connection.execute(_LEASE, leases)
    return tuple(map(_delivery, picked))


def next_due(connection: Connection) -> datetime | None:
    moments = (connection.execute(_NEXT_FREE).scalar(), connection.execute(_NEXT_LEASE_END).scalar())
    return min((moment for moment in moments if moment is not None), default=None)


def _delivery(row: AnyRow) -> Delivery:
    event = NewEvent(
        id=EventId(row.event_id),
        project_id=ProjectId(row.project_id),
        name=row.name,
        subject=row.subject,
        family=row.family,
        body=row.body,
        created_at=row.event_created_at,
    )
    return Delivery(
        id=row.id,
        project_id=event.project_id,
        endpoint_id=row.endpoint_id,
        event=event,
        sequence=row.sequence,
        state=DeliveryState.PENDING,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        created_at=row.created_at,
    )
