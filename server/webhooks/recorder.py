"""Records events for the endpoints that subscribed to them, in the transaction of the state change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.domain.webhook import NewEvent, WebhookEndpoint
from server.ids import ProjectId
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.events import wants


class OutboxRecorder:
    """The EventRecorder port on the outbox.

    `wake` nudges the relay of this process; it is called before the commit, so the relay looks again for a while.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    async def record(self, tx: UnitOfWork, event: NewEvent) -> None:
        """One query for the project's endpoints; an event that nobody wants is not stored."""
        await self.record_all(tx, [event])

    async def record_all(self, tx: UnitOfWork, events: Sequence[NewEvent]) -> None:
        """`record` for each in turn, with one query for each project; those that nobody wants are not stored."""
        endpoints: dict[ProjectId, tuple[WebhookEndpoint, ...]] = {}
        chosen: list[tuple[NewEvent, list[str]]] = []
        for event in events:
            if event.project_id not in endpoints:
                endpoints[event.project_id] = await tx.webhooks.list(event.project_id)
            wanting = [
                endpoint.id
                for endpoint in endpoints[event.project_id]
                if endpoint.enabled and wants(endpoint.events, event.name)
            ]
            if wanting:
                chosen.append((event, wanting))
        if chosen:
            await tx.outbox.record_all(chosen)
            self._wake()
