"""Records events for the endpoints that subscribed to them, in the transaction of the state change."""

from __future__ import annotations

from collections.abc import Callable

from server.domain.webhook import NewEvent
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
        endpoints = await tx.webhooks.list(event.project_id)
        chosen = [
            endpoint.id for endpoint in endpoints if endpoint.enabled and wants(endpoint.events, event.name)
        ]
        if not chosen:
            return
        await tx.outbox.record(event, chosen)
        self._wake()
