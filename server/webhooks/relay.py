"""Delivers recorded events to their endpoints: claims what is due, posts it, and writes down what came of it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from server.clock import Clock
from server.domain.webhook import Delivery, DeliveryAttempt, WebhookEndpoint
from server.ids import new_id
from server.observability.work_metrics import PostEnd, WorkMetrics
from server.ports.unit_of_work import AttemptOutcome, Database, UnitOfWork
from server.ports.webhook_sender import PostResult, WebhookSender
from server.webhooks.envelopes import LIVEKIT
from server.webhooks.livekit_signing import livekit_headers
from server.webhooks.schedule import RetrySchedule
from server.webhooks.signing import delivery_headers

_logger = logging.getLogger(__name__)

_ENDPOINT_GONE = PostResult(status_code=None, error="the endpoint was deleted or disabled", latency_ms=0)
_SENDER_BROKE = PostResult(status_code=None, error="internal error", latency_ms=0)


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Limits and pace of one relay.

    `concurrency` posts at once in this process, `per_endpoint` of them to one endpoint. Endpoints that failed or took
    longer than `slow_after_sec` the last time share half of the places, so that the others always find one.
    `lease` must exceed the sender's timeout: after it the deliveries of a killed relay are taken over.
    `idle_poll_sec` is the longest pause between looks for events of other processes.
    """

    schedule: RetrySchedule = field(default_factory=RetrySchedule)
    concurrency: int = 64
    per_endpoint: int = 4
    slow_after_sec: float = 2.0
    lease: timedelta = timedelta(seconds=30)
    idle_poll_sec: float = 2.0
    retention: timedelta = timedelta(days=30)
    purge_every: timedelta = timedelta(hours=1)


_FIRST_PAUSE_SEC = 0.02
# A busy relay does what comes up meanwhile in one transaction, at half the cost of one for each event.
_PACE_SEC = 0.005
_PAUSE_AFTER_FAULT_SEC = 1.0


class WebhookRelay:
    """One delivery loop; any number of them, in any processes, share the work by leases.

    Deliveries of one subject to one endpoint go out one after another, all else at the same time. At-least-once: a
    relay that dies between the answer and its record leaves a delivery that is posted again under the same `eventId`.
    """

    def __init__(
        self,
        database: Database,
        sender: WebhookSender,
        clock: Clock,
        *,
        owner: str,
        options: RelayOptions | None = None,
        metrics: WorkMetrics | None = None,
    ) -> None:
        self._database = database
        self._sender = sender
        self._clock = clock
        self._owner = owner
        self._options = options or RelayOptions()
        self._metrics = metrics or WorkMetrics()
        self._look = asyncio.Event()
        self._pause = _FIRST_PAUSE_SEC
        self._next_claim = 0.0
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._posting: dict[asyncio.Task[None], str] = {}
        self._outcomes: list[AttemptOutcome] = []
        self._purging: asyncio.Task[None] | None = None
        self._next_purge = clock.now()
        self._lagging: set[str] = set()

    def wake(self) -> None:
        """Look at once, and often for the next moments: the transaction that recorded an event may still be open."""
        self._pause = _FIRST_PAUSE_SEC
        self._look.set()

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="webhook-relay")

    async def stop(self, grace_sec: float = 12.0) -> None:
        """Claims no more; posts under way may end within the grace, later ones are taken over after their lease."""
        self._stopping = True
        self._look.set()
        if self._loop is not None:
            await self._loop
        running = {*self._posting, *([self._purging] if self._purging else [])}
        if running:
            _, late = await asyncio.wait(running, timeout=grace_sec)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._outcomes:
            try:
                async with self._database.begin() as tx:
                    await tx.outbox.record_attempts(self._outcomes)
                    await tx.commit()
            except Exception:
                _logger.exception("%d webhook deliveries could not be recorded", len(self._outcomes))

    async def _run(self) -> None:
        while not self._stopping:
            self._look.clear()
            try:
                pause = await self._round()
            except Exception:
                # The database may be restarting: nothing is lost, everything due is still there afterwards.
                _logger.exception("webhook relay could not use the outbox")
                pause = _PAUSE_AFTER_FAULT_SEC
            if pause > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._look.wait()

    async def _round(self) -> float:
        """Claims once if anything is due; returns the seconds to wait before the next look unless woken."""
        self._purge_if_due()
        if self._outcomes:
            await self._record_and_claim()
            return 0.0
        if len(self._posting) >= self._options.concurrency:
            return self._options.idle_poll_sec
        async with self._database.read() as tx:
            due = await tx.outbox.next_due()
        if due is not None and due <= self._clock.now() and await self._record_and_claim():
            self._pause = _FIRST_PAUSE_SEC
            return 0.0
        pause = self._pause
        self._pause = min(self._pause * 2, self._options.idle_poll_sec)
        if due is not None and (ahead := (due - self._clock.now()).total_seconds()) > 0:
            pause = min(pause, ahead)
        return pause

    async def _record_and_claim(self) -> int:
        """In one transaction, writes down what the last posts came to and claims as many as there are free places."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_claim - loop.time())
        self._next_claim = loop.time() + _PACE_SEC
        outcomes = tuple(self._outcomes)
        async with self._database.begin() as tx:
            if outcomes:
                await tx.outbox.record_attempts(outcomes)
            claimed = await self._claim(tx)
            endpoints = {
                delivery.endpoint_id: await tx.webhooks.get(delivery.project_id, delivery.endpoint_id)
                for delivery in {delivery.endpoint_id: delivery for delivery in claimed}.values()
            }
            await tx.commit()
        del self._outcomes[: len(outcomes)]
        for delivery in claimed:
            task = asyncio.create_task(
                self._deliver(delivery, endpoints[delivery.endpoint_id]), name=f"webhook-{delivery.id}"
            )
            self._posting[task] = delivery.endpoint_id
            task.add_done_callback(self._posted)
        return len(claimed)

    async def _claim(self, tx: UnitOfWork) -> list[Delivery]:
        """First for the endpoints that answer well, then, in what is left of their share, for the lagging ones."""
        free = self._options.concurrency - len(self._posting)
        lagging = frozenset(self._lagging)
        claim = partial(
            tx.outbox.claim_due,
            owner=self._owner,
            now=self._clock.now(),
            lease=self._options.lease,
            per_endpoint=self._options.per_endpoint,
        )
        claimed = list(await claim(limit=free, skip=lagging)) if free > 0 else []
        spare = min(free - len(claimed), self._places_for_lagging())
        if lagging and spare > 0:
            claimed += await claim(limit=spare)
        return claimed

    def _places_for_lagging(self) -> int:
        taken = sum(endpoint_id in self._lagging for endpoint_id in self._posting.values())
        return max(self._options.concurrency // 2, 1) - taken

    def _posted(self, task: asyncio.Task[None]) -> None:
        del self._posting[task]
        self._look.set()

    async def _deliver(self, delivery: Delivery, endpoint: WebhookEndpoint | None) -> None:
        if endpoint is None or not endpoint.enabled:
            self._lagging.discard(delivery.endpoint_id)
            self._record(delivery, _ENDPOINT_GONE, next_attempt_at=None)
            return
        started = asyncio.get_running_loop().time()
        result = await self._post(delivery, endpoint)
        # Not the result's latency: an endpoint that drips its answer holds its place until the answer is cut off.
        took_sec = asyncio.get_running_loop().time() - started
        if result.delivered and took_sec <= self._options.slow_after_sec:
            self._lagging.discard(endpoint.id)
        else:
            self._lagging.add(endpoint.id)
        next_attempt_at = None if result.delivered else self._next_attempt_at(delivery)
        self._metrics.webhook_posted(_end_of(result, next_attempt_at), took_sec)
        self._record(delivery, result, next_attempt_at=next_attempt_at)

    async def _post(self, delivery: Delivery, endpoint: WebhookEndpoint) -> PostResult:
        now = self._clock.now()
        if delivery.event.family == LIVEKIT:
            headers = livekit_headers(delivery.event, endpoint, now=now)
        else:
            headers = delivery_headers(delivery.event, endpoint.secrets, delivery_id=delivery.id, now=now)
        try:
            return await self._sender.post(endpoint.url, delivery.event.body, headers)
        except Exception:
            # A fault of ours must not end the delivery's schedule, nor keep its subject leased until it expires.
            _logger.exception("webhook delivery %s could not be posted", delivery.id)
            return _SENDER_BROKE

    def _next_attempt_at(self, delivery: Delivery) -> datetime | None:
        pause = self._options.schedule.pause(delivery.id, delivery.attempts + 1)
        return None if pause is None else self._clock.now() + pause

    def _record(self, delivery: Delivery, result: PostResult, *, next_attempt_at: datetime | None) -> None:
        attempt = DeliveryAttempt(
            id=new_id("wat"),
            delivery_id=delivery.id,
            endpoint_id=delivery.endpoint_id,
            event_id=delivery.event.id,
            event=delivery.event.name,
            attempt=delivery.attempts + 1,
            status_code=result.status_code,
            error=result.error,
            latency_ms=result.latency_ms,
            delivered=result.delivered,
            created_at=self._clock.now(),
        )
        self._outcomes.append(AttemptOutcome(attempt, result.delivered, next_attempt_at))
        if not result.delivered:
            _log_failure(attempt, last=next_attempt_at is None)

    def _purge_if_due(self) -> None:
        if self._purging is not None or self._clock.now() < self._next_purge:
            return
        self._next_purge = self._clock.now() + self._options.purge_every
        self._purging = asyncio.create_task(self._purge(), name="webhook-purge")
        self._purging.add_done_callback(lambda _: setattr(self, "_purging", None))

    async def _purge(self) -> None:
        try:
            async with self._database.begin() as tx:
                removed = await tx.outbox.purge(before=self._clock.now() - self._options.retention)
                await tx.commit()
        except Exception:
            _logger.exception("old webhook events could not be removed")
        else:
            if removed:
                _logger.info("removed %d webhook events past their retention", removed)


def _end_of(result: PostResult, next_attempt_at: datetime | None) -> PostEnd:
    if result.delivered:
        return PostEnd.DELIVERED
    return PostEnd.DEAD if next_attempt_at is None else PostEnd.FAILED


def _log_failure(attempt: DeliveryAttempt, *, last: bool) -> None:
    _logger.warning(
        "attempt %d to deliver event %s to webhook %s failed (%s)%s",
        attempt.attempt,
        attempt.event_id,
        attempt.endpoint_id,
        attempt.error or f"HTTP {attempt.status_code}",
        "; it was the last" if last else "",
    )
