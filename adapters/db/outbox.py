"""Events on their way to endpoints: recorded with the state change, attempted, replayed, purged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, or_, select

from adapters.db.columns import Moment
from adapters.db.egress_tables import egresses
from adapters.db.outbox_claim import Claim, claim, next_due
from adapters.db.session import AnyRow, Session
from adapters.db.tables import deliveries, delivery_attempts, events, webhook_endpoints
from server.domain.egress import EgressStatus
from server.domain.webhook import (
    HOLDING_ATTEMPTS,
    AttemptPage,
    Delivery,
    DeliveryAttempt,
    DeliveryState,
    NewEvent,
)
from server.ids import EventId, ProjectId, new_id
from server.ports.unit_of_work import AttemptOutcome

_PENDING, _DELIVERED, _DEAD = (state.value for state in DeliveryState)
_RUNNING = tuple(status.value for status in EgressStatus if not status.is_final)
_LOGGED = tuple(DeliveryAttempt.__dataclass_fields__)

_d = deliveries
_LOOK_UP = select(_d.c.id, _d.c.project_id, _d.c.endpoint_id, _d.c.subject, _d.c.sequence).where(
    _d.c.id.in_(bindparam("p_ids", expanding=True))
)
# A late answer of a relay whose lease ran out must not undo what the next one did: only a success, or the first
# failure of that number, changes the delivery.
_END_ATTEMPT = (
    _d.update()
    .where(
        _d.c.id == bindparam("p_id"),
        _d.c.state == _PENDING,
        or_(_d.c.attempts < bindparam("v_attempts"), bindparam("p_state") == _DELIVERED),
    )
    .values(
        state=bindparam("p_state"),
        attempts=bindparam("v_attempts"),
        next_attempt_at=func.coalesce(bindparam("v_next", type_=Moment), _d.c.next_attempt_at),
        lease_owner=None,
        lease_until=None,
    )
)
# Those behind a failing one cannot go before it; moving them along keeps them out of every search until then.
_PUSH_FOLLOWERS = (
    _d.update()
    .where(
        _d.c.endpoint_id == bindparam("p_endpoint"),
        _d.c.subject == bindparam("p_subject"),
        _d.c.state == _PENDING,
        _d.c.sequence > bindparam("p_sequence"),
        _d.c.next_attempt_at < bindparam("v_next", type_=Moment),
    )
    .values(next_attempt_at=bindparam("v_next", type_=Moment))
)

_a = delivery_attempts


def _listing(by_endpoint: bool) -> tuple[Any, Any]:
    where = [_a.c.project_id == bindparam("p_project")]
    if by_endpoint:
        where.append(_a.c.endpoint_id == bindparam("p_endpoint"))
    page = (
        select(*(_a.c[name] for name in _LOGGED))
        .where(*where)
        .order_by(_a.c.sequence.desc())
        .limit(bindparam("p_limit"))
        .offset(bindparam("p_offset"))
    )
    return page, select(func.count()).select_from(_a).where(*where)


_LISTINGS = {by_endpoint: _listing(by_endpoint) for by_endpoint in (False, True)}

_OF_ENDPOINT = and_(_d.c.project_id == bindparam("p_project"), _d.c.endpoint_id == bindparam("p_endpoint"))
_REOPEN = _d.update().values(state=_PENDING, attempts=0, next_attempt_at=bindparam("v_now", type_=Moment))
_REPLAY_ONE = _REOPEN.where(_OF_ENDPOINT, _d.c.event_id == bindparam("p_event"))
_REPLAY_SINCE = _REOPEN.where(_OF_ENDPOINT, _d.c.created_at >= bindparam("p_since", type_=Moment))
# What waits behind a replayed delivery was put off with it (`_PUSH_FOLLOWERS`) and is free again when it arrives.
_PULL_FOLLOWERS = (
    _d.update()
    .where(
        _OF_ENDPOINT,
        _d.c.state == _PENDING,
        _d.c.attempts == 0,
        _d.c.next_attempt_at > bindparam("v_now", type_=Moment),
    )
    .values(next_attempt_at=bindparam("v_now", type_=Moment))
)

_BEFORE = bindparam("p_before", type_=Moment)
_PURGE_ATTEMPTS = _a.delete().where(_a.c.created_at < _BEFORE)
_PURGE_DELIVERIES = _d.delete().where(
    _d.c.created_at < _BEFORE,
    # One recorded while its endpoint was deleted stays PENDING for ever.
    or_(_d.c.state != _PENDING, ~exists().where(webhook_endpoints.c.id == _d.c.endpoint_id)),
)
_PURGE_EVENTS = events.delete().where(
    events.c.created_at < _BEFORE, ~exists().where(_d.c.event_id == events.c.id)
)
_w = webhook_endpoints
_PURGE_ENDPOINTS = _w.delete().where(
    _w.c.egress_id.is_not(None),
    _w.c.created_at < _BEFORE,
    ~exists().where(_d.c.endpoint_id == _w.c.id),
    ~exists().where(egresses.c.id == _w.c.egress_id, egresses.c.status.in_(_RUNNING)),
)


class SqlOutbox:
    """Implements `OutboxRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, event: NewEvent, endpoint_ids: Sequence[str]) -> None:
        """Stores the event and one PENDING delivery per endpoint, due now."""
        await self.record_all([(event, endpoint_ids)])

    async def record_all(self, recorded: Sequence[tuple[NewEvent, Sequence[str]]]) -> None:
        """`record` for many, in this order, at the price of one."""
        event_rows = [asdict(event) for event, _ in recorded]
        delivery_rows = [
            {
                "id": new_id("dlv"),
                "project_id": event.project_id,
                "endpoint_id": endpoint_id,
                "event_id": event.id,
                "subject": event.subject,
                "state": _PENDING,
                "attempts": 0,
                "next_attempt_at": event.created_at,
                "created_at": event.created_at,
            }
            for event, endpoint_ids in recorded
            for endpoint_id in endpoint_ids
        ]

        def insert(connection: Connection) -> None:
            if event_rows:
                connection.execute(events.insert(), event_rows)
            if delivery_rows:
                connection.execute(deliveries.insert(), delivery_rows)

        await self._session.run(insert)

    async def claim_due(
        self,
        *,
        owner: str,
        now: datetime,
        lease: timedelta,
        limit: int,
        per_endpoint: int = 4,
        skip: Collection[str] = (),
    ) -> tuple[Delivery, ...]:
        wanted = Claim(owner, now, now + lease, limit, per_endpoint, tuple(skip))
        return await self._session.run(lambda connection: claim(connection, wanted))

    async def next_due(self) -> datetime | None:
        return await self._session.run(next_due)

    async def record_attempt(
        self, attempt: DeliveryAttempt, *, delivered: bool, next_attempt_at: datetime | None
    ) -> None:
        await self.record_attempts([AttemptOutcome(attempt, delivered, next_attempt_at)])

    async def record_attempts(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Attempts at deliveries that were deleted meanwhile leave no trace."""
        if outcomes:
            await self._session.run(lambda connection: _record_attempts(connection, outcomes))

    async def attempts(
        self, project_id: ProjectId, *, endpoint_id: str | None, page: int, size: int
    ) -> AttemptPage:
        """Newest first."""
        listing, count = _LISTINGS[endpoint_id is not None]
        where: dict[str, Any] = {"p_project": project_id}
        if endpoint_id is not None:
            where["p_endpoint"] = endpoint_id
        window = {**where, "p_limit": size, "p_offset": (page - 1) * size}
        rows, total = await self._session.run(
            lambda c: (c.execute(listing, window).all(), c.execute(count, where).scalar_one())
        )
        return AttemptPage(tuple(map(_attempt, rows)), total)

    async def replay(
        self,
        project_id: ProjectId,
        endpoint_id: str,
        *,
        event_id: EventId | None,
        since: datetime | None,
        now: datetime,
    ) -> int:
        """Exactly one of `event_id` and `since`; one that is in flight stays so and is due again after that."""
        if (event_id is None) == (since is None):
            raise ValueError("replay takes an event or a moment")
        values = {"p_project": project_id, "p_endpoint": endpoint_id, "v_now": now}

        def reopen(connection: Connection) -> int:
            if event_id is not None:
                count = connection.execute(_REPLAY_ONE, {**values, "p_event": event_id}).rowcount
            else:
                count = connection.execute(_REPLAY_SINCE, {**values, "p_since": since}).rowcount
            if count:
                connection.execute(_PULL_FOLLOWERS, values)
            return count

        return await self._session.run(reopen)

    async def purge(self, *, before: datetime) -> int:
        def delete(connection: Connection) -> int:
            connection.execute(_PURGE_ATTEMPTS, {"p_before": before})
            connection.execute(_PURGE_DELIVERIES, {"p_before": before})
            connection.execute(_PURGE_ENDPOINTS, {"p_before": before})
            return connection.execute(_PURGE_EVENTS, {"p_before": before}).rowcount

        return await self._session.run(delete)


def _record_attempts(connection: Connection, outcomes: Sequence[AttemptOutcome]) -> None:
    ids = sorted({outcome.attempt.delivery_id for outcome in outcomes})
    found: Mapping[str, AnyRow] = {row.id: row for row in connection.execute(_LOOK_UP, {"p_ids": ids})}
    # In one order everywhere, so that two relays never wait for each other.
    known = sorted(
        (outcome for outcome in outcomes if outcome.attempt.delivery_id in found),
        key=lambda outcome: found[outcome.attempt.delivery_id].sequence,
    )
    if not known:
        return
    connection.execute(delivery_attempts.insert(), [_log_row(outcome, found) for outcome in known])
    connection.execute(_END_ATTEMPT, [_end_row(outcome) for outcome in known])
    retries = [
        _push_row(outcome, found)
        for outcome in known
        if _state(outcome) == _PENDING and outcome.attempt.attempt < HOLDING_ATTEMPTS
    ]
    if retries:
        connection.execute(_PUSH_FOLLOWERS, retries)


def _state(outcome: AttemptOutcome) -> str:
    if outcome.delivered:
        return _DELIVERED
    return _DEAD if outcome.next_attempt_at is None else _PENDING


def _log_row(outcome: AttemptOutcome, found: Mapping[str, AnyRow]) -> dict[str, Any]:
    row = asdict(outcome.attempt)
    if outcome.attempt.error is not None:
        # PostgreSQL's text holds no NUL, and the error may quote the receiver's answer.
        row["error"] = outcome.attempt.error.replace("\0", "")
    return {**row, "project_id": found[outcome.attempt.delivery_id].project_id}


def _end_row(outcome: AttemptOutcome) -> dict[str, Any]:
    return {
        "p_id": outcome.attempt.delivery_id,
        "v_attempts": outcome.attempt.attempt,
        "p_state": _state(outcome),
        "v_next": None if outcome.delivered else outcome.next_attempt_at,
    }


def _push_row(outcome: AttemptOutcome, found: Mapping[str, AnyRow]) -> dict[str, Any]:
    row = found[outcome.attempt.delivery_id]
    return {
        "p_endpoint": row.endpoint_id,
        "p_subject": row.subject,
        "p_sequence": row.sequence,
        "v_next": outcome.next_attempt_at,
    }


def _attempt(row: AnyRow) -> DeliveryAttempt:
    return DeliveryAttempt(**row._mapping)
