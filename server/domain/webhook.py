"""Webhook endpoints, events, deliveries and their states."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from server.ids import EventId, ProjectId


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One secret of an endpoint; `expires_at` is set on the older one while a rotation overlaps."""

    value: str = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """`secrets` newest first; empty means unsigned (design section 13). `events` are patterns such as `video.*`.

    One with an `egress_id` is that egress's own and no list shows it; `signing_key` names the LiveKit-style key whose
    secret it holds.
    """

    id: str
    project_id: ProjectId
    url: str
    events: tuple[str, ...]
    secrets: tuple[SigningSecret, ...]
    enabled: bool
    created_at: datetime
    updated_at: datetime
    egress_id: str | None = None
    signing_key: str | None = None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as the outbox takes it, in the transaction of the state change it tells of.

    `subject` is the job, room or egress id whose events must stay in order. `body` is the exact JSON bytes of every
    attempt. `family` picks headers: `baxstream`, `core`, `rtcstack` (B-12, B-14) or `livekit`.
    """

    id: EventId
    project_id: ProjectId
    name: str
    subject: str
    family: str
    body: bytes
    created_at: datetime


class DeliveryState(str, Enum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


HOLDING_ATTEMPTS = 6
"""How often an event may fail before later events of its subject stop to wait for it, to the same endpoint.

An endpoint that is down gets its events in order when it is back within the first retries; one that refuses a certain
event for good must not keep all that follows from arriving.
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: str
    project_id: ProjectId
    endpoint_id: str
    event: NewEvent
    sequence: int
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One POST (WB-47). `status_code` is None when no answer came; then `error` says why. Latency in ms."""

    id: str
    delivery_id: str
    endpoint_id: str
    event_id: EventId
    event: str
    attempt: int
    status_code: int | None
    error: str | None
    latency_ms: int
    delivered: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptPage:
    items: tuple[DeliveryAttempt, ...]
    total: int
