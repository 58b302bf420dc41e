"""Prometheus metrics of the RPC surface."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """The text for `/metrics` and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST


class RpcMetrics:
    """Calls by method, transport and code. Labels come from descriptors and enums, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._calls = Counter(
            "bax_rpc_calls", "Finished calls.", ("rpc", "transport", "code"), registry=registry
        )
        self._seconds = Histogram(
            "bax_rpc_seconds",
            "Duration of unary and upload calls.",
            ("rpc", "transport"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "bax_rpc_running", "Calls that are running.", ("rpc", "transport"), registry=registry
        )
        # `labels()` costs more than the increment, so children are kept.
        self._call_children: dict[tuple[str, str, str], Counter] = {}
        self._children: dict[tuple[str, str], tuple[Gauge, Histogram]] = {}

    def began(self, rpc: str, transport: str) -> None:
        self._pair(rpc, transport)[0].inc()

    def ended(self, rpc: str, transport: str, code: str, seconds: float, *, timed: bool) -> None:
        """`timed` is False for server streams, whose length says nothing about us."""
        running, histogram = self._pair(rpc, transport)
        running.dec()
        if timed:
            histogram.observe(seconds)
        child = self._call_children.get((rpc, transport, code))
        if child is None:
            child = self._call_children[rpc, transport, code] = self._calls.labels(rpc, transport, code)
        child.inc()

    def _pair(self, rpc: str, transport: str) -> tuple[Gauge, Histogram]:
        pair = self._children.get((rpc, transport))
        if pair is None:
            pair = (self._running.labels(rpc, transport), self._seconds.labels(rpc, transport))
            self._children[rpc, transport] = pair
        return pair
