"""JSON Schemas of messages, with the limits that their `buf.validate` rules state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty

from generated.baxcloud.v1 import options_pb2
from generated.buf.validate import validate_pb2
from server.rpc.descriptors import descriptor_of, enum_type, is_map, is_message, message_type, option

Schema = dict[str, Any]

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FIXED32: "uint32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "int64",
    FieldDescriptor.TYPE_SFIXED64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FIXED64: "uint64",
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
}
_STRING_RULES = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}
_NUMBER_RULES = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


class Schemas:
    """Collects the schemas of messages as they are met; `build` gives them by name.

    What a reply always holds is required there; what a request must hold is required there. Where one message is in
    both, only what both require.
    """

    def __init__(self, descriptions: Mapping[str, str]) -> None:
        self._descriptions = descriptions
        self._met: dict[str, Descriptor] = {}
        self._required: dict[str, set[str]] = {}
        self._walked: set[tuple[str, bool]] = set()

    def reply(self, descriptor: Descriptor) -> Schema:
        """A reference to the schema of a reply."""
        self._walk(descriptor, in_reply=True)
        return _reference(descriptor)

    def request(self, descriptor: Descriptor, without: Iterable[str]) -> Schema:
        """The schema of a body, without the fields that the path fills."""
        fields = [field for field in descriptor.fields if field.name not in set(without)]
        for field in fields:
            if is_message(field):
                self._walk(_value_type(field), in_reply=False)
        required = [field.json_name for field in fields if _must_be_given(field)]
        return self._object(descriptor, fields, required)

    def build(self) -> dict[str, Schema]:
        """All schemas met, by name."""
        return {
            _name(descriptor): self._object(descriptor, descriptor.fields, sorted(self._required[full_name]))
            for full_name, descriptor in sorted(self._met.items())
        }

    def _walk(self, descriptor: Descriptor, *, in_reply: bool) -> None:
        name = descriptor.full_name
        if name in _WELL_KNOWN or (name, in_reply) in self._walked:
            return
        self._walked.add((name, in_reply))
        self._met[name] = descriptor
        holds = _always_there if in_reply else _must_be_given
        required = {field.json_name for field in descriptor.fields if holds(field)}
        self._required[name] = self._required[name] & required if name in self._required else required
        for field in descriptor.fields:
            if is_message(field):
                self._walk(_value_type(field), in_reply=in_reply)

    def _object(
        self, descriptor: Descriptor, fields: Iterable[FieldDescriptor], required: list[str]
    ) -> Schema:
        properties = {field.json_name: field_schema(field, self._descriptions) for field in fields}
        schema: Schema = {"type": "object", "properties": properties}
        if text := self._descriptions.get(descriptor.full_name):
            schema["description"] = text
        if required:
            schema["required"] = required
        return schema


def field_schema(field: FieldDescriptor, descriptions: Mapping[str, str] | None) -> Schema:
    """The schema of one field, with its comment if `descriptions` are given."""
    rules = option(field.GetOptions(), validate_pb2.field)
    if is_map(field):
        value = message_type(field).fields_by_name["value"]
        schema: Schema = {"type": "object", "additionalProperties": _single(value, None)}
    elif field.is_repeated:
        schema = {
            "type": "array",
            "items": _single(field, rules.repeated.items),
            **_list_limits(field, rules),
        }
    else:
        schema = _single(field, rules)
    text = "" if descriptions is None else descriptions.get(field.full_name, "")
    return {**schema, "description": text} if text else schema


def _single(field: FieldDescriptor, rules: Any) -> Schema:
    if is_message(field):
        known = _WELL_KNOWN.get(message_type(field).full_name)
        return _reference(message_type(field)) if known is None else dict(known)
    if field.type == FieldDescriptor.TYPE_ENUM:
        unset_allowed = rules is None or 0 not in rules.enum.not_in
        values = enum_type(field).values
        return {"type": "string", "enum": [value.name for value in values if unset_allowed or value.number]}
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"type": "string", **_limits(rules and rules.string, _STRING_RULES)}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.type in _INTEGERS:
        kind = _INTEGERS[field.type]
        return {"type": "integer", "format": kind, **_limits(rules and getattr(rules, kind), _NUMBER_RULES)}
    return {"type": "number", "format": "double", **_limits(rules and rules.double, _NUMBER_RULES)}


def _limits(rules: Any, names: Mapping[str, str]) -> Schema:
    if not rules:
        return {}
    found: Schema = {shown: getattr(rules, name) for name, shown in names.items() if rules.HasField(name)}
    if "pattern" in found:
        found["pattern"] = _without_flags(found["pattern"])
    if allowed := list(getattr(rules, "in")):
        found["enum"] = allowed
    return found


def _without_flags(pattern: str) -> str:
    """JSON Schema's regular expressions know no `(?i)`: `mp4` becomes `[mM][pP]4`."""
    if not pattern.startswith("(?i)"):
        return pattern
    letter = re.compile(r"[a-z]", re.IGNORECASE)
    return letter.sub(lambda match: f"[{match[0].lower()}{match[0].upper()}]", pattern.removeprefix("(?i)"))


def _list_limits(field: FieldDescriptor, rules: Any) -> Schema:
    found: Schema = {}
    if rules.repeated.unique:
        found["uniqueItems"] = True
    if rules.repeated.HasField("max_items"):
        found["maxItems"] = rules.repeated.max_items
    if option(field.GetOptions(), options_pb2.refuse_empty):
        found["minItems"] = 1
    return found


def _must_be_given(field: FieldDescriptor) -> bool:
    """A field without presence whose zero value its rules refuse."""
    if field.is_repeated or field.has_presence:
        return False
    rules = option(field.GetOptions(), validate_pb2.field)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return 0 in rules.enum.not_in
    allowed = getattr(rules.string, "in")
    return field.type == FieldDescriptor.TYPE_STRING and (
        rules.string.min_len > 0 or (bool(allowed) and "" not in allowed)
    )


def _always_there(field: FieldDescriptor) -> bool:
    return not field.has_presence and not is_map(field)


def _value_type(field: FieldDescriptor) -> Descriptor:
    """The message that a field holds; for maps the type of their values, or a well-known one if they are scalars."""
    if not is_map(field):
        return message_type(field)
    value = message_type(field).fields_by_name["value"]
    return message_type(value) if is_message(value) else descriptor_of(Empty())


def _name(descriptor: Descriptor) -> str:
    return descriptor.full_name.removeprefix(descriptor.file.package + ".")


def _reference(descriptor: Descriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{_name(descriptor)}"}
