"""Projects, jobs, endpoints and events for the database's contract tests."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.db.unit_of_work import SqlDatabase
from server.domain.job import Job, NewJob
from server.domain.project import Project, S3Config
from server.domain.webhook import Delivery, DeliveryAttempt, NewEvent, SigningSecret, WebhookEndpoint
from server.ids import EventId, JobId, ProjectId, new_event_id, new_id, new_job_id
from server.ports.unit_of_work import AttemptOutcome

NOW = datetime(2026, 3, 29, 14, 30, 0, 123456, tzinfo=UTC)
PROJECT = ProjectId("cl_first")
OTHER = ProjectId("cl_other")
SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)

S3 = S3Config(
    bucket="b",
    region="r",
    endpoint="https://s3",
    prefix="p/",
    access_key="AK",
    secret_key="SK",
    cdn_url="https://c",
)


def new_job(job_id: JobId | None = None, project: ProjectId = PROJECT, **changes: Any) -> NewJob:
    job = NewJob(
        job_id or new_job_id(), project, "conversion", {"inputUrl": "https://x/v.mp4", "n": [1, 2.5]}
    )
    return replace(job, **changes)


async def add_job(db: SqlDatabase, job: NewJob, at: datetime = NOW) -> Job:
    async with db.begin() as tx:
        stored = await tx.jobs.add(job, at)
        await tx.commit()
    return stored


def endpoint(endpoint_id: str = "wh_1", project: ProjectId = PROJECT, **changes: Any) -> WebhookEndpoint:
    secrets = (SigningSecret("whsec_new"), SigningSecret("whsec_old", NOW + SECOND))
    made = WebhookEndpoint(
        endpoint_id, project, "https://hooks.test/x", ("video.*", "core.a"), secrets, True, NOW, NOW
    )
    return replace(made, **changes)


async def add_endpoints(db: SqlDatabase, *endpoints: WebhookEndpoint) -> None:
    async with db.begin() as tx:
        for each in endpoints:
            await tx.webhooks.add(each)
        await tx.commit()


async def record(db: SqlDatabase, subject: str, *endpoint_ids: str, at: datetime = NOW) -> EventId:
    event_id = new_event_id()
    body = json.dumps({"eventId": event_id, "ü": "\U0001f3ac"}, ensure_ascii=False).encode()
    async with db.begin() as tx:
        event = NewEvent(event_id, PROJECT, "video.completed", subject, "baxstream", body, at)
        await tx.outbox.record(event, endpoint_ids)
        await tx.commit()
    return event_id


async def claim(
    db: SqlDatabase, at: datetime, *, owner: str = "relay", limit: int = 100, **more: Any
) -> tuple[Delivery, ...]:
    async with db.begin() as tx:
        claimed = await tx.outbox.claim_due(owner=owner, now=at, lease=LEASE, limit=limit, **more)
        await tx.commit()
    return claimed


def outcome(
    delivery: Delivery, at: datetime, *, delivered: bool, retry: datetime | None = None
) -> AttemptOutcome:
    attempt = DeliveryAttempt(
        id=new_id("wat"),
        delivery_id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event.id,
        event=delivery.event.name,
        attempt=delivery.attempts + 1,
        status_code=200 if delivered else None,
        error=None if delivered else "connection refused\0",
        latency_ms=12,
        delivered=delivered,
        created_at=at,
    )
    return AttemptOutcome(attempt, delivered, retry)


async def finish(db: SqlDatabase, *outcomes: AttemptOutcome) -> None:
    async with db.begin() as tx:
        await tx.outbox.record_attempts(outcomes)
        await tx.commit()


async def add_projects(database: SqlDatabase) -> None:
    async with database.begin() as tx:
        await tx.projects.add(Project(PROJECT, "First", NOW, S3))
        await tx.projects.add(Project(OTHER, "Other", NOW + SECOND))
        await tx.commit()
