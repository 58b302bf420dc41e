"""The job engine's statements: turns, delays, heartbeats and losses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, func, literal_column, or_, select, text, type_coerce
from sqlalchemy.sql import ColumnElement, Select

from adapters.db.session import Session, fetch_all, fetch_first
from adapters.db.tables import jobs
from server.domain.job import RunningJob, Waiting
from server.ids import JobId

CHANNEL = "baxcloud_jobs"
MICROS = 1_000_000
# No delay is longer. What claims to be due later was stamped under a clock that has been set back since, and is due.
MAX_DELAY_SEC = 3600.0
_MAX_DELAY = round(MAX_DELAY_SEC * MICROS)

# Written out, not bound: SQLite uses a partial index only for a condition it can see.
_WAITS = text("status = 'PENDING'")
_RUNS = text("status = 'PROCESSING'")
_KINDS = jobs.c.kind.in_(bindparam("p_kinds", expanding=True))
_DUE_AT = type_coerce(jobs.c.due_at, BigInteger)
_NOTIFY = select(func.pg_notify(CHANNEL, ""))

# Steady, and running on while the machine sleeps: a host whose clock is set back must not wait hours for a retry.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET_NS = time.time_ns() - time.clock_gettime_ns(_STEADY)


def _now_on_sqlite() -> int:
    return (_OFFSET_NS + time.clock_gettime_ns(_STEADY)) // 1000


class _Statements:
    """Those that read the clock; `now` is in microseconds since 1970."""

    def __init__(self, now: ColumnElement[Any]) -> None:
        self.now = now
        due = or_(jobs.c.due_at.is_(None), now >= _DUE_AT, now + _MAX_DELAY < _DUE_AT)
        self.delay = (
            jobs.update()
            .where(jobs.c.id == bindparam("p_id"))
            .values(due_at=now + bindparam("p_delay", type_=BigInteger))
        )
        self.ready = select(jobs.c.id).where(_WAITS, jobs.c.kind == bindparam("p_kind"), due).limit(1)
        self.next_due = select((func.min(_DUE_AT) - now).label("micros")).where(
            _WAITS, jobs.c.due_at.is_not(None), now < _DUE_AT, now + _MAX_DELAY >= _DUE_AT, _KINDS
        )
        turn = (
            select(jobs.c.id)
            .where(_WAITS, jobs.c.kind == bindparam("p_kind"), due)
            .order_by(jobs.c.project_id, jobs.c.created_at, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        self.next_turn: Select[Any] = turn.where(jobs.c.project_id > bindparam("p_after"))
        self.first_turn: Select[Any] = turn


_BY_DIALECT = {
    "sqlite": _Statements(bindparam("p_now", type_=BigInteger)),
    "postgresql": _Statements(
        literal_column("(extract(epoch from clock_timestamp()) * 1000000)::bigint", BigInteger)
    ),
}

_UNDELAY = jobs.update().where(jobs.c.id == bindparam("p_id"), jobs.c.due_at.is_not(None)).values(due_at=None)
_RUNNING = select(
    jobs.c.id, jobs.c.kind, jobs.c.owner, jobs.c.epoch, jobs.c.beat, jobs.c.attempt, jobs.c.max_attempts
).where(_RUNS, _KINDS)
_BEAT = (
    jobs.update()
    .where(_RUNS, jobs.c.owner == bindparam("p_owner"), jobs.c.id.in_(bindparam("p_ids", expanding=True)))
    .values(beat=jobs.c.beat + 1)
    .returning(jobs.c.id, jobs.c.epoch)
)
_LOSE = (
    jobs.update()
    .where(
        _RUNS,
        jobs.c.id == bindparam("p_id"),
        jobs.c.epoch == bindparam("p_epoch"),
        jobs.c.beat == bindparam("p_beat"),
    )
    .values(losses=jobs.c.losses + 1)
    .returning(jobs.c.losses)
)


class SqlJobQueue:
    """Implements `JobQueueRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def announce(self, job_id: JobId, *, delay_sec: float) -> None:
        """Makes a PENDING job due in `delay_sec`, an hour at most, and wakes idle workers when the transaction commits."""

        def work(connection: Connection) -> None:
            if delay_sec > 0:
                statement, clock = _for(connection)
                connection.execute(
                    statement.delay,
                    {"p_id": job_id, "p_delay": round(min(delay_sec, MAX_DELAY_SEC) * MICROS), **clock},
                )
            else:
                connection.execute(_UNDELAY, {"p_id": job_id})
            if connection.dialect.name == "postgresql":
                connection.execute(_NOTIFY)

        await self._session.run(work)

    async def waiting(self, kinds: Sequence[str]) -> Waiting:
        """A look without locks, for a read unit of work."""

        def work(connection: Connection) -> Waiting:
            statement, clock = _for(connection)
            ready = frozenset(
                kind
                for kind in kinds
                if connection.execute(statement.ready, {"p_kind": kind, **clock}).first() is not None
            )
            micros = connection.execute(statement.next_due, {"p_kinds": list(kinds), **clock}).scalar()
            return Waiting(ready, None if micros is None else micros / MICROS)

        return await self._session.run(work)

    async def next_waiting(self, kind: str, *, after: str) -> JobId | None:
        """The oldest due PENDING job of the first project behind `after`, locked until the transaction ends."""

        def work(connection: Connection) -> JobId | None:
            statement, clock = _for(connection)
            where = {"p_kind": kind, **clock}
            row = connection.execute(statement.next_turn, {**where, "p_after": after}).first()
            row = row or connection.execute(statement.first_turn, where).first()
            return None if row is None else row.id

        return await self._session.run(work)

    async def running(self, kinds: Sequence[str]) -> tuple[RunningJob, ...]:
        rows = await fetch_all(self._session, _RUNNING, {"p_kinds": list(kinds)})
        return tuple(RunningJob(**row._mapping) for row in rows)

    async def beat(self, owner: str, job_ids: Sequence[JobId]) -> Mapping[JobId, int]:
        """Says that `owner` lives; the epochs of those jobs that it still owns."""
        rows = await fetch_all(self._session, _BEAT, {"p_owner": owner, "p_ids": list(job_ids)})
        return {row.id: row.epoch for row in rows}

    async def mark_lost(self, seen: RunningJob) -> int | None:
        """Compare-and-set on epoch and beat: how often this job has lost its worker, None if it moved on since."""
        row = await fetch_first(
            self._session, _LOSE, {"p_id": seen.id, "p_epoch": seen.epoch, "p_beat": seen.beat}
        )
        return None if row is None else row.losses


def _for(connection: Connection) -> tuple[_Statements, Mapping[str, int]]:
    name = connection.dialect.name
    return _BY_DIALECT[name], {"p_now": _now_on_sqlite()} if name == "sqlite" else {}


def clock_of(connection: Connection) -> tuple[ColumnElement[Any], Mapping[str, int]]:
    """The database's now in microseconds since 1970, and what to bind for it: hosts' clocks may be hours apart."""
    statements, clock = _for(connection)
    return statements.now, clock
