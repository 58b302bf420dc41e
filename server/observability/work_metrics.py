"""Prometheus metrics of what one process does in the background: its jobs and its webhook deliveries."""

from __future__ import annotations

from enum import Enum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# A conversion takes from a second to hours; a claim is late from seconds on.
_ATTEMPT_BUCKETS = (1, 2.5, 5, 10, 30, 60, 150, 300, 600, 1800, 3600, 10800, 43200)
_CLAIM_BUCKETS = (0.05, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 1800, 3600)
_POST_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class AttemptEnd(str, Enum):
    """How one attempt at a job ended in this process."""

    COMPLETED = "completed"
    FAILED = "failed"
    RETRIED = "retried"
    HANDED_OVER = "handed_over"
    LOST = "lost"
    UNRECORDED = "unrecorded"


class PostEnd(str, Enum):
    """What came of one attempt to deliver a webhook; `DEAD` was the last one of its schedule."""

    DELIVERED = "delivered"
    FAILED = "failed"
    DEAD = "dead"


class WorkMetrics:
    """Kinds come from the handlers and ends from enums, so the number of labels is bounded."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._claim_seconds = Histogram(
            "bax_job_claim_seconds",
            "From a job's submission to its first claim, for jobs without a delay.",
            ("kind",),
            buckets=_CLAIM_BUCKETS,
            registry=self.registry,
        )
        self._running = Gauge(
            "bax_job_running", "Jobs that run in this process.", ("kind",), registry=self.registry
        )
        self._attempts = Counter(
            "bax_job_attempts", "Ended attempts at jobs.", ("kind", "outcome"), registry=self.registry
        )
        self._attempt_seconds = Histogram(
            "bax_job_attempt_seconds",
            "Duration of attempts at jobs.",
            ("kind",),
            buckets=_ATTEMPT_BUCKETS,
            registry=self.registry,
        )
        self._takeovers = Counter(
            "bax_job_takeovers",
            "Jobs found without their worker, and run again or failed here.",
            ("kind",),
            registry=self.registry,
        )
        self._posts = Counter(
            "bax_webhook_attempts", "Attempts to deliver a webhook.", ("outcome",), registry=self.registry
        )
        self._post_seconds = Histogram(
            "bax_webhook_post_seconds",
            "How long endpoints took to answer, or to fail.",
            buckets=_POST_BUCKETS,
            registry=self.registry,
        )
        # So that rates exist from the start, and the first failure shows as one.
        for end in PostEnd:
            self._posts.labels(end.value)

    def takes(self, kind: str) -> None:
        """A worker of this process runs jobs of this kind from now on."""
        for metric in (self._claim_seconds, self._running, self._attempt_seconds, self._takeovers):
            metric.labels(kind)
        for end in AttemptEnd:
            self._attempts.labels(kind, end.value)

    def job_claimed(self, kind: str, waited_sec: float) -> None:
        self._claim_seconds.labels(kind).observe(max(waited_sec, 0.0))

    def job_taken_over(self, kind: str) -> None:
        self._takeovers.labels(kind).inc()

    def attempt_began(self, kind: str) -> None:
        self._running.labels(kind).inc()

    def attempt_ended(self, kind: str, end: AttemptEnd, seconds: float) -> None:
        self._running.labels(kind).dec()
        self._attempts.labels(kind, end.value).inc()
        self._attempt_seconds.labels(kind).observe(seconds)

    def webhook_posted(self, end: PostEnd, seconds: float) -> None:
        self._posts.labels(end.value).inc()
        self._post_seconds.observe(seconds)
