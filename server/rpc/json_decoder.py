"""Parsed JSON into protobuf messages, naming the field that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from generated.baxcloud.v1 import options_pb2
from server.rpc.descriptors import descriptor_of, enum_type, is_map, is_message, message_type, option
from server.rpc.json_scalars import (
    FieldFault,
    boolean,
    bytes_of,
    integer,
    number,
    number_or_text,
    string,
)
from server.rpc.validation import camel_case, enum_text

# A level of JSON is up to three of protobuf, whose parsers stop at 100.
DEEPEST = 30
_INTS: dict[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Set = Callable[[Message, Any], None]


class Decoder:
    """Fills messages. `strings_as_numbers` is what proto3 JSON allows and REST does not."""

    def __init__(self, *, strings_as_numbers: bool) -> None:
        self._strings_as_numbers = strings_as_numbers
        self._setters: dict[str, dict[str, tuple[FieldDescriptor, Set]]] = {}
        self._by_field: dict[str, Set] = {}

    def into(self, message: Message, tree: dict[str, Any]) -> None:
        """Set the fields that `tree` names; raises FieldFault."""
        setters = self._setters_of(descriptor_of(message))
        given: set[int] = set()
        for name, value in tree.items():
            found = setters.get(name)
            if found is None:
                continue
            field, setter = found
            if field.number in given:
                raise FieldFault("must be given once", camel_case(field.name))
            given.add(field.number)
            try:
                setter(message, value)
            except FieldFault as fault:
                raise fault.below(camel_case(field.name)) from None

    def field_into(self, message: Message, field: FieldDescriptor, value: Any) -> None:
        """Set one field; raises FieldFault."""
        try:
            self._setter(field)(message, value)
        except FieldFault as fault:
            raise fault.below(camel_case(field.name)) from None

    def _setters_of(self, descriptor: Descriptor) -> dict[str, tuple[FieldDescriptor, Set]]:
        found = self._setters.get(descriptor.full_name)
        if found is None:
            found = {}
            for field in descriptor.fields:
                pair = (field, self._setter(field))
                found[field.name] = pair
                found[field.json_name] = pair
            self._setters[descriptor.full_name] = found
        return found

    def _setter(self, field: FieldDescriptor) -> Set:
        found = self._by_field.get(field.full_name)
        if found is None:
            found = self._by_field[field.full_name] = self._compile(field)
        return found

    def _compile(self, field: FieldDescriptor) -> Set:
        if field.is_repeated:
            return self._map(field) if is_map(field) else self._list(field)
        setter = self._message(field) if is_message(field) else self._scalar(field)
        oneof = field.containing_oneof
        if oneof is None or len(oneof.fields) == 1:
            return setter

        def exclusive(message: Message, value: Any) -> None:
            taken = message.WhichOneof(oneof.name)
            if value is not None and taken not in (None, field.name):
                raise FieldFault(f"cannot be given together with {camel_case(str(taken))}")
            setter(message, value)

        return exclusive

    def _scalar(self, field: FieldDescriptor) -> Set:
        convert, name = self._converter(field), field.name

        def put(message: Message, value: Any) -> None:
            if value is not None:
                _assign(message, name, convert(value))

        return put

    def _message(self, field: FieldDescriptor) -> Set:
        name = field.name
        if message_type(field).full_name == "google.protobuf.Value":
            return lambda message, value: fill_value(getattr(message, name), value)

        def put(message: Message, value: Any) -> None:
            if value is None:
                return
            below = getattr(message, name)
            below.SetInParent()
            self._fill(below, value)

        return put

    def _fill(self, message: Message, value: Any) -> None:
        """Set a message from its JSON form, which for well-known types is not an object of fields."""
        descriptor = message.DESCRIPTOR
        if descriptor.file.package == "google.protobuf" and descriptor.name != "Empty":
            _fill_well_known(message, value)
        elif isinstance(value, dict):
            self.into(message, value)
        else:
            raise FieldFault("must be an object")

    def _list(self, field: FieldDescriptor) -> Set:
        name = field.name
        refuse_empty: bool = option(field.GetOptions(), options_pb2.refuse_empty)
        convert = None if is_message(field) else self._converter(field)

        def put(message: Message, value: Any) -> None:
            if value is None:
                return
            if not isinstance(value, list):
                raise FieldFault("must be a list")
            if refuse_empty and not value:
                raise FieldFault("must not be empty")
            items = getattr(message, name)
            for index, item in enumerate(value):
                try:
                    if convert is None:
                        self._fill(items.add(), item)
                    else:
                        _append(items, convert(item))
                except FieldFault as fault:
                    raise fault.below(f"[{index}]") from None

        return put

    def _map(self, field: FieldDescriptor) -> Set:
        entry = message_type(field)
        key_of = _MAP_KEYS.get(entry.fields_by_name["key"].type, _integer_key)
        value_field = entry.fields_by_name["value"]
        convert = None if is_message(value_field) else self._converter(value_field)

        def put(message: Message, value: Any) -> None:
            if value is None:
                return
            if not isinstance(value, dict):
                raise FieldFault("must be an object")
            entries = getattr(message, field.name)
            for key, item in value.items():
                try:
                    if convert is None:
                        self._fill(entries[key_of(key)], item)
                    else:
                        entries[key_of(key)] = convert(item)
                except FieldFault as fault:
                    raise fault.below(key) from None
                except UnicodeEncodeError:
                    raise FieldFault("must be valid Unicode text") from None

        return put

    def _converter(self, field: FieldDescriptor) -> Callable[[Any], Any]:
        kind = field.type
        if kind == FieldDescriptor.TYPE_STRING:
            return string
        if kind == FieldDescriptor.TYPE_BOOL:
            return boolean
        if kind == FieldDescriptor.TYPE_ENUM:
            return _enum(field)
        if kind == FieldDescriptor.TYPE_BYTES:
            return bytes_of
        if kind in _INTS:
            low, high = _INTS[kind]
            text_allowed = self._strings_as_numbers or high > 2**32
            return lambda value: integer(value, low, high, text_allowed=text_allowed)
        if self._strings_as_numbers:
            return number_or_text
        return number


# The seed's names for what LiveKit's proto calls IMAGE_SUFFIX_… (B-40).
_OTHER_NAMES = {"livekit.ImageFileSuffix": {"index": 0, "timestamp": 1}}


def _enum(field: FieldDescriptor) -> Callable[[Any], int]:
    enum = enum_type(field)
    numbers = {value.name.lower(): value.number for value in enum.values}
    numbers |= _OTHER_NAMES.get(enum.full_name, {})

    def convert(value: Any) -> int:
        if isinstance(value, str):
            if (found := numbers.get(value.lower())) is not None:
                return found
        elif isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            return value
        raise FieldFault(enum_text(enum))

    return convert


def _assign(message: Message, name: str, value: Any) -> None:
    try:
        setattr(message, name, value)
    except UnicodeEncodeError:
        raise FieldFault("must be valid Unicode text") from None


def _append(items: Any, value: Any) -> None:
    try:
        items.append(value)
    except UnicodeEncodeError:
        raise FieldFault("must be valid Unicode text") from None


def fill_value(value: Any, tree: Any, depth: int = 1) -> None:
    """Any JSON into a `google.protobuf.Value`; numbers that a double cannot hold exactly are refused, not rounded."""
    if depth > DEEPEST:
        raise FieldFault(f"must not be nested deeper than {DEEPEST} levels")
    if tree is None:
        value.null_value = 0
    elif isinstance(tree, bool):
        value.bool_value = tree
    elif isinstance(tree, int | float):
        value.number_value = _exact(tree)
    elif isinstance(tree, str):
        _assign(value, "string_value", tree)
    elif isinstance(tree, list):
        value.list_value.SetInParent()
        for index, item in enumerate(tree):
            _step(value.list_value.values.add(), item, depth, f"[{index}]")
    else:
        value.struct_value.SetInParent()
        for key, item in tree.items():
            try:
                below = value.struct_value.fields[key]
            except UnicodeEncodeError:
                raise FieldFault("must be valid Unicode text") from None
            _step(below, item, depth, key)


def _step(value: Any, tree: Any, depth: int, step: str) -> None:
    try:
        fill_value(value, tree, depth + 1)
    except FieldFault as fault:
        raise fault.below(step) from None


def _exact(given: float) -> float:
    found = number(given)
    if isinstance(given, int) and int(found) != given:
        raise FieldFault("is an integer too large to be kept exactly; send it as a string")
    return found


def _fill_well_known(message: Message, value: Any) -> None:
    name = message.DESCRIPTOR.name
    if name == "Timestamp":
        _fill_timestamp(message, value)
    elif name == "Value":
        fill_value(message, value)
    else:
        try:
            json_format.ParseDict(value, message)
        except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError):
            raise FieldFault(f"must be a {name} as proto3 JSON writes it") from None


def _fill_timestamp(message: Any, value: Any) -> None:
    fault = FieldFault("must be a date-time such as 2026-01-31T12:00:00Z")
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) and value.isascii() else None
    if match is None:
        raise fault
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in 'Zz' else offset}")
        whole = (moment - _EPOCH) // (datetime.resolution * 1_000_000)
    except (ValueError, OverflowError):
        raise fault from None
    message.seconds = whole
    message.nanos = int((fraction or "0").ljust(9, "0"))
    if not -62_135_596_800 <= whole <= 253_402_300_799:
        raise fault


def _string_key(text: str) -> str:
    return text


def _boolean_key(text: str) -> bool:
    if text not in ("true", "false"):
        raise FieldFault("must be a key true or false")
    return text == "true"


def _integer_key(text: str) -> int:
    return integer(text, -(2**63), 2**64 - 1, text_allowed=True)


_MAP_KEYS: dict[int, Callable[[str], Any]] = {
    FieldDescriptor.TYPE_STRING: _string_key,
    FieldDescriptor.TYPE_BOOL: _boolean_key,
}
