"""Value classes as JSON and back: what crosses the database and process borders."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dataclasses become objects, tuples arrays, enums their values; a dataclass of a union gets its `kind` first."""
    if is_dataclass(value) and not isinstance(value, type):
        body = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        kind = getattr(type(value), "KIND", None)
        return {"kind": kind, **body} if kind else body
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_json(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(one) for one in value]
    return value


def from_json(kind: type[T] | Any, value: Any) -> T:
    """The inverse of `to_json`: fields left out take their defaults, unknown ones are ignored.

    Unions of dataclasses are told apart by their class variable `KIND`. Raise KeyError, TypeError or ValueError for what
    does not fit.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _member(get_args(kind), value)  # type: ignore[no-any-return]
    if origin is tuple:
        return tuple(from_json(get_args(kind)[0], one) for one in value)  # type: ignore[return-value]
    if origin is not None and issubclass(origin, Mapping):
        return {key: from_json(get_args(kind)[1], one) for key, one in value.items()}  # type: ignore[return-value]
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        given = {name: from_json(hints[name], one) for name, one in value.items() if name in hints}
        return kind(**given)  # type: ignore[return-value]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)  # type: ignore[return-value]
    return value  # type: ignore[no-any-return]


def _member(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    classes = [one for one in kinds if one is not type(None)]
    if len(classes) == 1:
        return from_json(classes[0], value)
    if isinstance(value, Mapping):
        tagged = {one.KIND: one for one in classes if hasattr(one, "KIND")}
        return from_json(tagged[value["kind"]], value)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}
