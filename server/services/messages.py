"""Conversions between domain values and protobuf's well-known types, and the paging rule of all lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from generated.baxcloud.v1 import common_pb2
from server.domain.project import S3Config
from server.errors import invalid

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
# Doubles hold integers exactly up to here; beyond it `Value` has lost digits already.
_MAX_EXACT = 2**53
_MAX_PAGE = 1_000_000


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def from_timestamp(stamp: Timestamp, *, field: str) -> datetime:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except ValueError:
        raise invalid(field, "is not a valid time") from None


def to_value(json_value: Any) -> Value:
    """Any JSON value as `google.protobuf.Value`; None becomes an explicit null (B-88)."""
    value = Value()
    match json_value:
        case None:
            value.null_value = 0  # type: ignore[assignment]  # NULL_VALUE
        case bool():
            value.bool_value = json_value
        case int() | float():
            value.number_value = json_value
        case str():
            value.string_value = json_value
        case Mapping():
            value.struct_value.CopyFrom(
                Struct(fields={key: to_value(item) for key, item in json_value.items()})
            )
        case Sequence():
            value.list_value.CopyFrom(ListValue(values=[to_value(item) for item in json_value]))
        case _:
            raise TypeError(f"not a JSON value: {type(json_value).__name__}")
    return value


def from_value(value: Value) -> Any:
    """The JSON value; whole numbers come back as integers, so that they are printed as they were sent (GN-23)."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number
        case "string_value":
            return value.string_value
        case "struct_value":
            return {key: from_value(item) for key, item in value.struct_value.fields.items()}
        case "list_value":
            return [from_value(item) for item in value.list_value.values]
        case _:
            return None


def page_of(request: Any) -> tuple[int, int]:
    """`(page, size)` of a list request: default 1 and 20, sizes above 100 mean 100, either size name (B-32)."""
    page = request.page if request.HasField("page") else 1
    sizes = [getattr(request, name) for name in ("page_size", "limit") if request.HasField(name)]
    if page > _MAX_PAGE:
        raise invalid("page", f"must not be greater than {_MAX_PAGE}")
    return page, min(sizes[0] if sizes else DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def s3_from_message(message: common_pb2.S3Config) -> S3Config:
    return S3Config(
        bucket=message.bucket,
        region=message.region,
        endpoint=message.endpoint,
        prefix=message.prefix,
        access_key=message.access_key,
        secret_key=message.secret_key,
        cdn_url=message.cdn_url,
    )


def s3_to_settings(config: S3Config) -> common_pb2.S3Settings:
    """What may be shown of a configuration."""
    return common_pb2.S3Settings(
        bucket=config.bucket,
        region=config.region or "auto",
        endpoint=config.endpoint,
        prefix=config.prefix,
        cdn_url=config.cdn_url,
        has_credentials=bool(config.access_key),
    )
