"""`egress_started`, `egress_updated` and `egress_ended` in LiveKit's form, to the addresses that a request named.

Each such address is a `WebhookEndpoint` of its own, known by the egress and the address's place in the request, so that
the outbox, the relay, its retries and the delivery log serve it like any other. It is made with the first event that it
wants, no list shows it, it holds the secret of the key that signs, and it is purged when its egress has ended and its
deliveries have passed their retention (LK-137 to LK-139, livekit-surface.md 8).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from server.clock import Clock
from server.domain.egress import Egress, EgressStatus, EgressWebhook
from server.domain.recording import Recording
from server.domain.webhook import NewEvent, SigningSecret, WebhookEndpoint
from server.egress.egress_info import egress_info
from server.egress.outcome import Caution
from server.ids import EventId, derived_id, new_livekit_event_id
from server.ports.unit_of_work import UnitOfWork
from server.webhooks.envelopes import LIVEKIT, encode

STARTED, UPDATED, ENDED = "egress_started", "egress_updated", "egress_ended"
_TOLD = (EgressStatus.ACTIVE, EgressStatus.ENDING)


class LiveKitEgressEvents:
    """The `EgressWatcher` of requests' own webhooks. `wake` nudges the relay of this process."""

    def __init__(self, wake: Callable[[], None], clock: Clock) -> None:
        self._wake = wake
        self._clock = clock

    async def started(self, tx: UnitOfWork, egress: Egress) -> None:
        await self._record(tx, egress, STARTED)

    async def changed(
        self,
        tx: UnitOfWork,
        before: Egress,
        after: Egress,
        recording: Recording | None,
    ) -> None:
        if not _has_webhooks(after):
            return
        if after.status.is_final:
            if not before.status.is_final:
                await self._record(tx, after, ENDED)
        elif after.status in _TOLD and _seen(before) != _seen(after):
            await self._record(tx, after, UPDATED)

    async def cautioned(self, tx: UnitOfWork, egress: Egress, caution: Caution) -> None:
        """LiveKit has no word for it: nothing that its receivers look at has changed."""

    async def _record(self, tx: UnitOfWork, egress: Egress, name: str) -> None:
        if not _has_webhooks(egress):
            return
        secrets = await tx.egresses.secrets(egress.id)
        now = self._clock.now()
        endpoints = [
            await _endpoint(tx, egress, index, webhook, now)
            for index, webhook in enumerate(secrets.webhooks)
            if wants(webhook, name)
        ]
        if endpoints:
            await tx.outbox.record(livekit_event(name, egress, now=now), endpoints)
            self._wake()


def wants(webhook: EgressWebhook, name: str) -> bool:
    """What is included counts before what is excluded."""
    return name in webhook.include if webhook.include else name not in webhook.exclude


def livekit_event(name: str, egress: Egress, *, now: datetime) -> NewEvent:
    """LiveKit's `WebhookEvent`: proto3 JSON in camelCase without what is unset, `createdAt` in seconds."""
    event_id = EventId(new_livekit_event_id())
    room = {"sid": egress.room_id, "name": egress.room_name}
    body: dict[str, Any] = {
        "event": name,
        "room": {key: value for key, value in room.items() if value},
        "egressInfo": egress_info(egress),
        "id": event_id,
        "createdAt": str(int(now.timestamp())),
    }
    return NewEvent(event_id, egress.project_id, name, egress.id, LIVEKIT, encode(body), now)


async def _endpoint(tx: UnitOfWork, egress: Egress, index: int, webhook: EgressWebhook, now: datetime) -> str:
    """The id of the address's endpoint, which is made if there is none yet; the egress's row is locked meanwhile."""
    endpoint_id = derived_id("wh", egress.id, str(index))
    if await tx.webhooks.get(egress.project_id, endpoint_id) is None:
        endpoint = WebhookEndpoint(
            id=endpoint_id,
            project_id=egress.project_id,
            url=webhook.url,
            events=(),
            secrets=(SigningSecret(webhook.secret),),
            enabled=True,
            created_at=now,
            updated_at=now,
            egress_id=egress.id,
            signing_key=webhook.signing_key,
        )
        await tx.webhooks.add(endpoint)
    return endpoint_id


def _has_webhooks(egress: Egress) -> bool:
    """Most have none, and this spares them a look at their secrets."""
    return bool(egress.request.get("body", {}).get("webhooks"))


def _seen(egress: Egress) -> dict[str, Any]:
    """What a receiver could tell apart."""
    return {key: value for key, value in egress_info(egress).items() if key != "updatedAt"}
