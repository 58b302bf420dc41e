"""What the webhook tests share: a clock that is set by hand, projects, endpoints, events and relays."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from adapters.http.netguard import NetGuard
from adapters.http.webhook_sender import HttpWebhookSender
from server.domain.project import Project
from server.domain.webhook import DeliveryAttempt, NewEvent, SigningSecret, WebhookEndpoint
from server.ids import ProjectId, new_id
from server.ports.unit_of_work import Database
from server.ports.webhook_sender import WebhookSender
from server.webhooks.envelopes import baxstream_event
from server.webhooks.recorder import OutboxRecorder
from server.webhooks.relay import RelayOptions, WebhookRelay
from server.webhooks.schedule import RetrySchedule
from tests.conftest import Eventually

PROJECT = ProjectId("cl_proj_abc123")
OTHER_PROJECT = ProjectId("cl_proj_other")
SECRET = "s3cret"
EXACT = RelayOptions(schedule=RetrySchedule(jitter=0))


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 4, 17, 10, 0, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def advance(self, step: timedelta) -> None:
        self.moment += step


@dataclass
class Stage:
    """One database with what delivers from it. Leaving the block stops every relay and sender."""

    database: Database
    eventually: Eventually
    clock: ManualClock = field(default_factory=ManualClock)
    relays: list[WebhookRelay] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        async with self.database.begin() as tx:
            for project_id in (PROJECT, OTHER_PROJECT):
                await tx.projects.add(Project(id=project_id, name="test", created_at=self.clock.now()))
            await tx.commit()
        return self

    async def __aexit__(self, *_: object) -> None:
        for relay in self.relays:
            await relay.stop(grace_sec=0)
        await self._stack.aclose()

    def sender(self, *, timeout_sec: float = 10.0, tls: ssl.SSLContext | None = None) -> HttpWebhookSender:
        sender = HttpWebhookSender(NetGuard(allow_private=True), timeout_sec=timeout_sec, tls=tls)
        self._stack.push_async_callback(sender.close)
        return sender

    def start_relay(
        self,
        *,
        options: RelayOptions = EXACT,
        sender: WebhookSender | None = None,
        database: Database | None = None,
    ) -> WebhookRelay:
        relay = WebhookRelay(
            database or self.database,
            sender or self.sender(),
            self.clock,
            owner=new_id("relay"),
            options=options,
        )
        relay.start()
        self.relays.append(relay)
        return relay

    async def stop(self, relay: WebhookRelay, *, grace_sec: float = 12.0) -> None:
        self.relays.remove(relay)
        await relay.stop(grace_sec)

    def wake(self) -> None:
        for relay in self.relays:
            relay.wake()

    def pass_time(self, step: timedelta) -> None:
        self.clock.advance(step)
        self.wake()

    async def endpoint(
        self,
        url: str,
        *events: str,
        secret: str | None = SECRET,
        enabled: bool = True,
        project_id: ProjectId = PROJECT,
    ) -> WebhookEndpoint:
        now = self.clock.now()
        endpoint = WebhookEndpoint(
            id=new_id("wh"),
            project_id=project_id,
            url=url,
            events=events or ("*",),
            secrets=(SigningSecret(secret),) if secret else (),
            enabled=enabled,
            created_at=now,
            updated_at=now,
        )
        async with self.database.begin() as tx:
            await tx.webhooks.add(endpoint)
            await tx.commit()
        return endpoint

    def event(
        self,
        name: str = "video.conversion.started",
        *,
        subject: str = "cm_job_1",
        project_id: ProjectId = PROJECT,
        number: int = 0,
    ) -> NewEvent:
        return baxstream_event(
            name,
            project_id=project_id,
            subject=subject,
            data={"jobId": subject, "number": number},
            metadata={"ü": "字"},
            now=self.clock.now(),
        )

    async def emit(self, *events: NewEvent) -> None:
        """Records the events as a state change would: all in one transaction."""
        recorder = OutboxRecorder(self.wake)
        async with self.database.begin() as tx:
            for event in events:
                await recorder.record(tx, event)
            await tx.commit()

    async def attempts(self, endpoint: WebhookEndpoint | None = None) -> list[DeliveryAttempt]:
        """The delivery log, oldest first."""
        async with self.database.read() as tx:
            page = await tx.outbox.attempts(
                endpoint.project_id if endpoint else PROJECT,
                endpoint_id=endpoint.id if endpoint else None,
                page=1,
                size=100,
            )
        return list(reversed(page.items))

    async def logged(self, count: int, endpoint: WebhookEndpoint | None = None) -> list[DeliveryAttempt]:
        """The delivery log once it has `count` entries."""

        async def enough() -> list[DeliveryAttempt]:
            found = await self.attempts(endpoint)
            return found if len(found) >= count else []

        found: list[DeliveryAttempt] = await self.eventually(enough)
        return found

    async def next_due(self) -> datetime | None:
        async with self.database.read() as tx:
            return await tx.outbox.next_due()
