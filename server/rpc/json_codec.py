"""JSON in and out, compiled once per message type, in the two spellings that we speak (contract B-80).

REST: camelCase, 64-bit integers as numbers, timestamps always with milliseconds, what is unset left out.
Twirp: proto names, defaults emitted, unset messages `null`, 64-bit integers as strings, as LiveKit's servers answer.
Both accept both spellings of a name, ignore unknown fields, and name the field when a value is wrong.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from server.rpc.descriptors import descriptor_of, enum_type, is_map, is_message, message_type
from server.rpc.json_decoder import Decoder
from server.rpc.json_scalars import FieldFault
from server.rpc.status import malformed

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: isoformat() then adds no offset
_INT64 = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SINT64,
}
_FLOAT = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
_SPECIAL_INTEGRAL = 1e21  # from here on JSON of other languages writes an exponent

Encode = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Style:
    """What differs between the two spellings."""

    camel_case: bool
    int64_as_string: bool
    null_messages: bool
    empty_maps: bool
    millis: bool
    strings_as_numbers: bool


REST_STYLE = Style(
    camel_case=True,
    int64_as_string=False,
    null_messages=False,
    empty_maps=False,
    millis=True,
    strings_as_numbers=False,
)
TWIRP_STYLE = Style(
    camel_case=False,
    int64_as_string=True,
    null_messages=True,
    empty_maps=True,
    millis=False,
    strings_as_numbers=True,
)


class JsonCodec:
    """Encoders and decoders of one style; compiled when a type is first seen."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._encoders: dict[str, Encode] = {}
        self._decoder = Decoder(strings_as_numbers=style.strings_as_numbers)

    def dump(self, message: Message) -> bytes:
        """The message as JSON text."""
        return dumps(self.encode(message))

    def encode(self, message: Message) -> Any:
        """The message as dicts, lists and scalars."""
        return self._encoder(descriptor_of(message))(message)

    def load(self, message: Message, text: bytes) -> None:
        """Fill `message` from JSON text; raises malformed or invalid_argument."""
        self.decode(message, loads(text))

    def decode(self, message: Message, tree: Any) -> None:
        """Fill `message` from a parsed JSON object; raises invalid_argument naming the field in REST spelling."""
        if not isinstance(tree, dict):
            raise malformed("the JSON request must be an object")
        try:
            self._decoder.into(message, tree)
        except FieldFault as fault:
            raise fault.as_error() from None

    def decode_field(self, message: Message, field: FieldDescriptor, value: Any) -> None:
        """Set one field from a parsed JSON value; raises invalid_argument."""
        try:
            self._decoder.field_into(message, field, value)
        except FieldFault as fault:
            raise fault.as_error() from None

    def _encoder(self, descriptor: Descriptor) -> Encode:
        found = self._encoders.get(descriptor.full_name)
        if found is None:
            own_form = descriptor.file.package == "google.protobuf" and descriptor.name != "Empty"
            found = self._well_known(descriptor.name) if own_form else self._compile(descriptor)
            self._encoders[descriptor.full_name] = found
        return found

    def _well_known(self, name: str) -> Encode:
        """The encoder of a well-known type, whose JSON is not an object of its fields."""
        if name == "Timestamp" and self._style.millis:
            return _timestamp_millis
        return _WELL_KNOWN.get(name, json_format.MessageToDict)

    def _compile(self, descriptor: Descriptor) -> Encode:
        # Registered before its fields are compiled, so that a type may contain itself.
        plans: list[tuple[str, str, Encode | None, int, Any]] = []

        def encode(message: Message) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for key, name, convert, kind, absent in plans:
                if kind == _PRESENCE:
                    if message.HasField(name):
                        value = getattr(message, name)
                        out[key] = value if convert is None else convert(value)
                    elif absent is not _OMIT:
                        out[key] = absent
                elif kind == _PLAIN:
                    value = getattr(message, name)
                    out[key] = value if convert is None else convert(value)
                elif kind == _REPEATED:
                    values = getattr(message, name)
                    out[key] = list(values) if convert is None else [convert(value) for value in values]
                else:
                    entries = getattr(message, name)
                    if entries or absent is not _OMIT:
                        out[key] = _map(entries, convert)
            return out

        self._encoders[descriptor.full_name] = encode
        plans.extend(self._plan(field) for field in descriptor.fields)
        return encode

    def _plan(self, field: FieldDescriptor) -> tuple[str, str, Encode | None, int, Any]:
        key = field.json_name if self._style.camel_case else field.name
        if is_map(field):
            convert = self._converter(message_type(field).fields_by_name["value"])
            return key, field.name, convert, _MAP, {} if self._style.empty_maps else _OMIT
        convert = self._converter(field)
        if field.is_repeated:
            return key, field.name, convert, _REPEATED, _OMIT
        if field.has_presence:
            shown = (
                field.message_type is not None
                and field.containing_oneof is None
                and self._style.null_messages
            )
            return key, field.name, convert, _PRESENCE, None if shown else _OMIT
        return key, field.name, convert, _PLAIN, _OMIT

    def _converter(self, field: FieldDescriptor) -> Encode | None:
        """None where the Python value is the JSON value."""
        if is_message(field):
            return self._encoder(message_type(field))
        if field.type == FieldDescriptor.TYPE_ENUM:
            if enum_type(field).full_name == "google.protobuf.NullValue":
                return lambda _value: None
            names = {value.number: value.name for value in enum_type(field).values}
            return lambda number: names.get(number, number)
        if field.type in _INT64:
            return str if self._style.int64_as_string else None
        if field.type in _FLOAT:
            return _number
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda data: base64.b64encode(data).decode("ascii")
        return None


_OMIT = object()
_PLAIN, _PRESENCE, _REPEATED, _MAP = range(4)


def dumps(tree: Any) -> bytes:
    """Compact JSON text."""
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def loads(text: bytes) -> Any:
    """Parse JSON text as RFC 8259 has it: UTF-8, no NaN, one value; raises malformed."""
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise malformed("the JSON request could not be decoded") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _map(entries: Mapping[Any, Any], convert: Encode | None) -> dict[str, Any]:
    """Sorted: protobuf keeps maps in no order, and one message must always give the same text."""
    names = {_map_key(key): key for key in entries}
    return {
        name: entries[names[name]] if convert is None else convert(entries[names[name]])
        for name in sorted(names)
    }


def _map_key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _number(value: float) -> float | int | str:
    """Integral values without `.0`, as JavaScript writes them; what JSON has no number for as proto3 JSON says."""
    if math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < _SPECIAL_INTEGRAL else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _timestamp_millis(message: Any) -> str:
    moment = _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    return moment.isoformat(timespec="milliseconds") + "Z"


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return _list(message.list_value)
    if kind is None or kind == "null_value":
        return None
    value = getattr(message, kind)
    return _number(value) if kind == "number_value" else value


def _struct(message: Any) -> dict[str, Any]:
    fields = message.fields
    return {name: _value(fields[name]) for name in sorted(fields)}


def _list(message: Any) -> list[Any]:
    return [_value(value) for value in message.values]


_WELL_KNOWN: Mapping[str, Encode] = {"Value": _value, "Struct": _struct, "ListValue": _list}

REST_JSON = JsonCodec(REST_STYLE)
TWIRP_JSON = JsonCodec(TWIRP_STYLE)
