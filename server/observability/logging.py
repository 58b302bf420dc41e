"""Structured logs as JSON lines, with secrets taken out before anything is written."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

_HIDDEN_KEYS = frozenset({
    "authorization", "api_key", "cookie", "password", "secret", "secret_key", "access_key", "set-cookie",
    "stream_key", "token", "x-api-key",
})  # fmt: skip
_MASK = "***"
_SCRUBS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Credentials in a URL, then its query, which may hold signatures, then the key of a stream address.
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"([a-z][a-z0-9+.-]*://[^\s?\"'<>]*)\?[^\s\"'<>]*", re.IGNORECASE), r"\1?***"),
    (re.compile(r"((?:rtmps?|srt)://[^\s/\"']+/[^\s/\"']+/)[^\s\"']+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer|basic)\s+[^\s\"',]+", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b(bax_|whsec_)[A-Za-z0-9_]+"), r"\1***"),
)
# A cheap test that spares most strings the patterns above.
_SUSPICIOUS = re.compile(r"://|bax_|whsec_|bearer|basic", re.IGNORECASE)


def scrub(text: str) -> str:
    """The text without credentials, query strings, stream keys and API keys."""
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern, replacement in _SCRUBS:
        text = pattern.sub(replacement, text)
    return text


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor; goes into nested mappings and lists."""
    for key, value in event.items():
        event[key] = _redacted(key, value)
    return event


def _redacted(key: str, value: Any) -> Any:
    if key.lower() in _HIDDEN_KEYS:
        return _MASK
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {inner: _redacted(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(key, item) for item in value]
    return value


def configure_logging(level: str = "info", *, stream: TextIO | None = None, console: bool = False) -> None:
    """Send our own and every library's logs through one pipeline to `stream` (default stderr).

    `console` prints for people instead of JSON lines.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [structlog.processors.format_exc_info, redact, _renderer(console)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.INFO))


def _renderer(console: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=False) if console else structlog.processors.JSONRenderer()
