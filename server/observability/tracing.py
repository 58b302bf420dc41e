"""OpenTelemetry spans where the `otel` extra is installed, nothing where it is not."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Tracer(Protocol):
    """Opens the span of one call."""

    def span(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """A span that continues the caller's trace (`traceparent` in `headers`) and ends with the block."""
        ...


class NoTracer:
    """Costs one call and no more."""

    _NOTHING = nullcontext()

    def span(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        return self._NOTHING


class OpenTelemetryTracer:
    """Uses the globally configured provider; the `OTEL_*` environment decides where spans go."""

    def __init__(self, trace: Any, propagate: Any) -> None:
        self._trace = trace
        self._propagate = propagate
        self._tracer = trace.get_tracer("baxcloud")

    def span(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        parent = self._propagate.extract(headers)
        span: AbstractContextManager[Any] = self._tracer.start_as_current_span(
            name, context=parent, kind=self._trace.SpanKind.SERVER
        )
        return span


def tracer() -> Tracer:
    """The best tracer this installation has."""
    try:
        # Other packages bring the API alone, whose spans cost time and go nowhere.
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            return NoTracer()
        trace = importlib.import_module("opentelemetry.trace")
        propagate = importlib.import_module("opentelemetry.propagate")
    except ImportError:
        return NoTracer()
    return OpenTelemetryTracer(trace, propagate)
