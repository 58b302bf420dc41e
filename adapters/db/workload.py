"""Counts of what is not done yet, each answered by a partial index alone."""

from __future__ import annotations

from sqlalchemy import Connection, func, literal_column, select, text

from adapters.db.session import Session
from adapters.db.tables import deliveries, jobs
from server.domain.job import JobStatus
from server.domain.webhook import DeliveryState
from server.domain.workload import KindLoad, Workload

# Literals: with parameters the planners cannot know that the partial indexes apply.
_PENDING_JOBS = (
    select(jobs.c.kind, func.count().label("number"), func.min(jobs.c.created_at).label("oldest"))
    .where(text(f"status = '{JobStatus.PENDING.value}'"))
    .group_by(jobs.c.kind)
)
_PROCESSING_JOBS = (
    select(jobs.c.kind, func.count().label("number"))
    .where(text(f"status = '{JobStatus.PROCESSING.value}'"))
    .group_by(jobs.c.kind)
)
_DELIVERIES = select(
    func.count().label("number"), func.min(deliveries.c.next_attempt_at).label("due_since")
).where(deliveries.c.state == literal_column(f"'{DeliveryState.PENDING.value}'"))


class SqlWorkload:
    """Implements `WorkloadRepository`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def of_all(self) -> Workload:
        """See `WorkloadRepository.of_all`."""

        def work(connection: Connection) -> Workload:
            pending = {row.kind: row for row in connection.execute(_PENDING_JOBS)}
            processing = {row.kind: row.number for row in connection.execute(_PROCESSING_JOBS)}
            outbox = connection.execute(_DELIVERIES).one()
            kinds = tuple(
                KindLoad(
                    kind,
                    pending[kind].number if kind in pending else 0,
                    processing.get(kind, 0),
                    pending[kind].oldest if kind in pending else None,
                )
                for kind in sorted({*pending, *processing})
            )
            return Workload(kinds, outbox.number, outbox.due_since)

        return await self._session.run(work)
