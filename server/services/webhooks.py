"""WebhookService: endpoints, their secrets, test pings, the delivery log and replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from google.protobuf import empty_pb2

from generated.baxcloud.v1 import webhook_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.webhook import DeliveryAttempt, SigningSecret, WebhookEndpoint
from server.errors import Code, ServiceError, invalid, not_found
from server.ids import EventId, ProjectId, new_id, new_webhook_secret
from server.ports.unit_of_work import Database, UnitOfWork
from server.ports.webhook_sender import WebhookSender
from server.services.messages import from_timestamp, page_of
from server.webhooks.envelopes import core_event
from server.webhooks.events import TEST_EVENT, check_patterns
from server.webhooks.signing import delivery_headers

HIDDEN = "***"
REPLAY_WINDOW = timedelta(days=30)
DEFAULT_OVERLAP_SEC = 86_400

_MAX_ENDPOINTS = 100
_MAX_SECRETS = 5


class UrlCheck(Protocol):
    def __call__(self, url: str, *, field: str) -> None:
        """Raise ServiceError invalid_argument naming `field` for an address that must not be posted to."""
        ...


class WebhookService:
    """`wake` nudges the relay after a replay; `check_url` is the address guard."""

    def __init__(
        self,
        database: Database,
        sender: WebhookSender,
        clock: Clock,
        *,
        check_url: UrlCheck,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._sender = sender
        self._clock = clock
        self._check_url = check_url
        self._wake = wake

    async def create_webhook(self, request: pb.CreateWebhookRequest, ctx: CallContext) -> pb.Webhook:
        """`secret` left out: one is made; `""`: unsigned (design section 13). The reply shows it, once."""
        self._check_url(request.url, field="url")
        secret = new_webhook_secret() if not request.HasField("secret") else _checked_secret(request.secret)
        if secret == HIDDEN:
            raise invalid("secret", f"{HIDDEN} stands for a stored secret and cannot be one")
        now = self._clock.now()
        endpoint = WebhookEndpoint(
            id=new_id("wh"),
            project_id=ctx.project_id,
            url=request.url,
            events=check_patterns(request.events),
            secrets=(SigningSecret(secret),) if secret else (),
            enabled=request.enabled if request.HasField("enabled") else True,
            created_at=now,
            updated_at=now,
        )
        async with self._database.begin() as tx:
            if len(await tx.webhooks.list(ctx.project_id)) >= _MAX_ENDPOINTS:
                raise ServiceError(
                    Code.FAILED_PRECONDITION, f"a project has at most {_MAX_ENDPOINTS} webhook endpoints"
                )
            await tx.webhooks.add(endpoint)
            await tx.commit()
        return self._shown(endpoint, reveal=True)

    async def list_webhooks(
        self, request: pb.ListWebhooksRequest, ctx: CallContext
    ) -> pb.ListWebhooksResponse:
        async with self._database.read() as tx:
            endpoints = await tx.webhooks.list(ctx.project_id)
        return pb.ListWebhooksResponse(
            items=[self._shown(endpoint) for endpoint in endpoints], total=len(endpoints)
        )

    async def get_webhook(self, request: pb.GetWebhookRequest, ctx: CallContext) -> pb.Webhook:
        async with self._database.read() as tx:
            return self._shown(await _endpoint(tx, ctx.project_id, request.webhook_id))

    async def update_webhook(self, request: pb.UpdateWebhookRequest, ctx: CallContext) -> pb.Webhook:
        """A new secret replaces every earlier one at once; rotation is for an overlap. The reply shows a new secret."""
        if request.HasField("url"):
            self._check_url(request.url, field="url")
        events = check_patterns(request.events) if request.events else None
        replaces_secret = request.HasField("secret") and request.secret != HIDDEN
        secret = _checked_secret(request.secret) if replaces_secret else ""
        async with self._database.begin() as tx:
            stored = await _endpoint(tx, ctx.project_id, request.webhook_id)
            endpoint = replace(
                stored,
                url=request.url if request.HasField("url") else stored.url,
                events=stored.events if events is None else events,
                enabled=request.enabled if request.HasField("enabled") else stored.enabled,
                updated_at=self._clock.now(),
            )
            if replaces_secret:
                endpoint = replace(endpoint, secrets=(SigningSecret(secret),) if secret else ())
            await tx.webhooks.save(endpoint)
            await tx.commit()
        return self._shown(endpoint, reveal=replaces_secret)

    async def delete_webhook(self, request: pb.DeleteWebhookRequest, ctx: CallContext) -> empty_pb2.Empty:
        async with self._database.begin() as tx:
            if not await tx.webhooks.delete(ctx.project_id, request.webhook_id):
                raise not_found("webhook", request.webhook_id)
            await tx.commit()
        return empty_pb2.Empty()

    async def rotate_webhook_secret(
        self, request: pb.RotateWebhookSecretRequest, ctx: CallContext
    ) -> pb.Webhook:
        """The new secret signs at once; earlier ones sign beside it until the overlap has passed."""
        overlap = request.overlap_seconds if request.HasField("overlap_seconds") else DEFAULT_OVERLAP_SEC
        now = self._clock.now()
        until = now + timedelta(seconds=overlap)
        async with self._database.begin() as tx:
            stored = await _endpoint(tx, ctx.project_id, request.webhook_id)
            earlier = (
                SigningSecret(secret.value, min(secret.expires_at or until, until))
                for secret in stored.secrets
            )
            overlapping = [secret for secret in earlier if secret.expires_at and secret.expires_at > now]
            endpoint = replace(
                stored,
                secrets=(SigningSecret(new_webhook_secret()), *overlapping)[:_MAX_SECRETS],
                updated_at=now,
            )
            await tx.webhooks.save(endpoint)
            await tx.commit()
        return self._shown(endpoint, reveal=True)

    async def test_webhook(self, request: pb.TestWebhookRequest, ctx: CallContext) -> pb.TestWebhookResponse:
        """Posts one signed `webhook.test`, once, also to a disabled endpoint; it is not part of the delivery log."""
        async with self._database.read() as tx:
            endpoint = await _endpoint(tx, ctx.project_id, request.webhook_id)
        now = self._clock.now()
        event = core_event(
            TEST_EVENT,
            project_id=ctx.project_id,
            subject=endpoint.id,
            data={"webhookId": endpoint.id},
            now=now,
        )
        headers = delivery_headers(event, endpoint.secrets, delivery_id=new_id("whd"), now=now)
        result = await self._sender.post(endpoint.url, event.body, headers)
        return pb.TestWebhookResponse(
            delivered=result.delivered,
            status_code=result.status_code,
            error=result.error,
            latency_ms=result.latency_ms,
        )

    async def replay_webhook(
        self, request: pb.ReplayWebhookRequest, ctx: CallContext
    ) -> pb.ReplayWebhookResponse:
        """Exactly one of `event_id` and `since`; at most 30 days back, because older events are gone (B-16)."""
        event_id = EventId(request.event_id) if request.HasField("event_id") else None
        since = from_timestamp(request.since, field="since") if request.HasField("since") else None
        now = self._clock.now()
        _check_replay(event_id, since, now)
        async with self._database.begin() as tx:
            endpoint = await _endpoint(tx, ctx.project_id, request.webhook_id)
            replayed = await tx.outbox.replay(
                ctx.project_id, endpoint.id, event_id=event_id, since=since, now=now
            )
            if event_id is not None and replayed == 0:
                raise not_found("event", event_id)
            await tx.commit()
        self._wake()
        return pb.ReplayWebhookResponse(replayed=replayed)

    async def list_deliveries(
        self, request: pb.ListDeliveriesRequest, ctx: CallContext
    ) -> pb.ListDeliveriesResponse:
        """Attempts, newest first (WB-47)."""
        page, limit = page_of(request)
        async with self._database.read() as tx:
            endpoint_id = None
            if request.HasField("webhook_id"):
                endpoint_id = (await _endpoint(tx, ctx.project_id, request.webhook_id)).id
            found = await tx.outbox.attempts(ctx.project_id, endpoint_id=endpoint_id, page=page, size=limit)
        return pb.ListDeliveriesResponse(
            items=[_attempt(attempt) for attempt in found.items], total=found.total, page=page, limit=limit
        )

    def _shown(self, endpoint: WebhookEndpoint, *, reveal: bool = False) -> pb.Webhook:
        newest = endpoint.secrets[0].value if endpoint.secrets else None
        shown = pb.Webhook(
            id=endpoint.id,
            url=endpoint.url,
            events=endpoint.events,
            secret=newest if reveal or newest is None else HIDDEN,
            has_secret=newest is not None,
            enabled=endpoint.enabled,
        )
        ends = [secret.expires_at for secret in endpoint.secrets if secret.expires_at is not None]
        if ends and max(ends) > self._clock.now():
            shown.previous_secret_expires_at.FromDatetime(max(ends))
        shown.created_at.FromDatetime(endpoint.created_at)
        shown.updated_at.FromDatetime(endpoint.updated_at)
        return shown


async def _endpoint(tx: UnitOfWork, project_id: ProjectId, endpoint_id: str) -> WebhookEndpoint:
    endpoint = await tx.webhooks.get(project_id, endpoint_id)
    if endpoint is None or endpoint.egress_id is not None:
        raise not_found("webhook", endpoint_id)
    return endpoint


def _checked_secret(secret: str) -> str:
    if not secret.isprintable() or secret != secret.strip():
        raise invalid("secret", "must be printable characters without blanks around them")
    return secret


def _check_replay(event_id: EventId | None, since: datetime | None, now: datetime) -> None:
    if (event_id is None) == (since is None):
        raise invalid("eventId" if since is None else "since", "give exactly one of eventId and since")
    if since is not None and since < now - REPLAY_WINDOW:
        raise invalid("since", f"must be within the last {REPLAY_WINDOW.days} days")
    if since is not None and since > now:
        raise invalid("since", "must not be in the future")


def _attempt(attempt: DeliveryAttempt) -> pb.WebhookDelivery:
    shown = pb.WebhookDelivery(
        id=attempt.id,
        event_id=attempt.event_id,
        event=attempt.event,
        webhook_id=attempt.endpoint_id,
        attempt=attempt.attempt,
        status_code=attempt.status_code,
        error=attempt.error,
        latency_ms=attempt.latency_ms,
        delivered=attempt.delivered,
    )
    shown.created_at.FromDatetime(attempt.created_at)
    return shown
