"""Column types that store the same value on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC; `moment` must be timezone-aware."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


class Moment(TypeDecorator[datetime]):
    # Integer microseconds: SQLite has no time type (text would be parsed on every read and compared as text), and
    # one plain number compares, indexes and adds the same on both databases, without time zones or rounding.
    """An aware UTC datetime, kept to the microsecond in a 64-bit integer."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


class JsonText(TypeDecorator[Any]):
    # Not JSONB: callers get metadata back as they sent it (GN-23), with key order and number spelling.
    """A JSON value as ASCII text; Python None is SQL NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def big_serial() -> TypeEngine[int]:
    """A growing primary key: SQLite only generates plain INTEGER keys."""
    return BigInteger().with_variant(Integer, "sqlite")
