"""Checks a request against the `buf.validate` rules of its proto; the same text on every transport."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import protovalidate
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from server.errors import Code, ServiceError, invalid
from server.rpc.descriptors import descriptor_of, enum_type, is_map, message_type

_validator = protovalidate.Validator()
_TEXTS = {
    "required": "is required",
    "repeated.unique": "must not hold an item twice",
    "message.oneof": "is required",
}


def validate(message: Message, *, unwrap: bool = False) -> None:
    """Raise invalid_argument for the first violation in field order; `meta` lists all of them if there are more.

    `unwrap` leaves the first step of each path out: a message of a client stream wraps what REST gives directly
    (`options.hlsTime` is `hlsTime` there).
    """
    violations = _validator.collect_violations(message)
    if not violations:
        if (steps := _unstorable(message)) is not None:
            raise invalid(_shown(steps, unwrap), "must not hold the character U+0000")
        return
    found = [_described(violation, descriptor_of(message), unwrap) for violation in violations]
    path, text = found[0]
    meta = {"violations": "; ".join(f"{path}: {text}" for path, text in found)} if len(found) > 1 else {}
    raise ServiceError(Code.INVALID_ARGUMENT, f"{path}: {text}", field=path, meta=meta)


@lru_cache(maxsize=4096)
def camel_case(name: str) -> str:
    """`s3_config` → `s3Config`, as proto3 JSON names fields."""
    return re.sub(r"_([a-zA-Z0-9])", lambda match: match[1].upper(), name)


def enum_text(enum: EnumDescriptor) -> str:
    """What to say of a value that an enum does not have."""
    names = [value.name for value in enum.values if not value.name.endswith("_UNSPECIFIED")]
    return f"must be one of {', '.join(names)}"


def _described(violation: Any, descriptor: Descriptor, unwrap: bool) -> tuple[str, str]:
    elements = violation.proto.field.elements
    path = []
    for element in elements:
        step = camel_case(element.field_name)
        if element.subscript is not None:
            step += f"[{element.subscript.value}]"
        path.append(step)
    rule = violation.proto.rule_id
    if rule == "string.min_len" and violation.rule_value == 1:
        text = "is required"
    elif rule.startswith("enum."):
        text = enum_text(enum_type(_field_at(descriptor, [element.field_name for element in elements])))
    else:
        text = _TEXTS.get(rule) or violation.proto.message.removeprefix("value ")
    return _shown(path, unwrap), text


def _field_at(descriptor: Descriptor, names: Iterable[str]) -> FieldDescriptor:
    first, *rest = names
    found: FieldDescriptor = descriptor.fields_by_name[first]
    for name in rest:
        found = message_type(found).fields_by_name[name]
    return found


def _shown(path: list[str], unwrap: bool) -> str:
    return ".".join(path[1:] if unwrap and len(path) > 1 else path)


def _unstorable(message: Message) -> list[str] | None:
    """The path of a string with U+0000, which neither PostgreSQL's text nor its JSON can hold."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            if any("\0" in text for text in (value if field.is_repeated else (value,))):
                return [camel_case(field.name)]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = _unstorable_below(field, value)
            if inner is not None:
                in_json = message_type(field).file.name == "google/protobuf/struct.proto"
                return [camel_case(field.name)] + ([] if in_json else inner)
    return None


def _unstorable_below(field: FieldDescriptor, value: Any) -> list[str] | None:
    if not field.is_repeated:
        return _unstorable(value)
    if not is_map(field):
        return next((path for item in value if (path := _unstorable(item)) is not None), None)
    for key, item in value.items():
        if isinstance(key, str) and "\0" in key:
            return []
        if isinstance(item, Message):
            if (path := _unstorable(item)) is not None:
                return path
        elif isinstance(item, str) and "\0" in item:
            return []
    return None
