"""Refusals in LiveKit's words (livekit-surface.md 1.5), and the small checks behind them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from server.errors import Code, ServiceError

_LONGEST_LAYOUT = 256


def wrong(field: str) -> ServiceError:
    """400 in the one form that LiveKit has for a field that is missing or cannot be."""
    return ServiceError(
        Code.INVALID_ARGUMENT, f"request has missing or invalid field: {field}", meta={"field": field}
    )


def incompatible(message: str) -> ServiceError:
    return ServiceError(Code.INVALID_ARGUMENT, message)


def check_layout(layout: str) -> None:
    """Any name; one that is no layout shows the grid, as with LiveKit."""
    if len(layout) > _LONGEST_LAYOUT or not layout.isprintable():
        raise wrong("layout")


def is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)


def enum_name(message: Any, field: str) -> str:
    """The name of an enum field's value, "" for a number that has none."""
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(getattr(message, field))
    return value.name if value else ""


def has_field(message: Any, field: str) -> bool:
    return field in message.DESCRIPTOR.fields_by_name
