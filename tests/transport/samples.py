"""Requests and replies of any message type, made from descriptors: valid ones, and ones with one wrong field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from generated.buf.validate import validate_pb2
from server.rpc.descriptors import descriptor_of, enum_type, message_type, option
from server.rpc.registry import Binding, Method

METADATA: Any = {"deep": [1, 2.5, None, True, {"text": 'é "quoted"'}], "empty": {}, "none": []}
_PATTERNS = {"(?i)^(mp4|ogg|webm)$": "MP4", "^[A-Za-z0-9_-]+$": "some-id"}
_INT32 = (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32)


def rules_of(field: FieldDescriptor) -> Any:
    return option(field.GetOptions(), validate_pb2.field)


def valid_request(method: Method) -> Message:
    """Every field set to something its rules allow."""
    return filled(method.request_type(), depth=3)


def full_reply(method: Method) -> Message:
    return filled(method.reply_type(), depth=5)


def filled(message: Message, depth: int) -> Message:
    if message.DESCRIPTOR.full_name == "google.protobuf.Value":
        json_format.ParseDict(METADATA, message)
        return message
    for field in descriptor_of(message).fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1 and message.WhichOneof(oneof.name):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            value = field.message_type.fields_by_name["value"]
            for key in ("720p", "360p"):
                entries[key] = valid_value(value, None)
        elif field.message_type is not None:
            if depth > 0 or field.message_type.full_name.startswith("google."):
                _fill_message(message, field, depth)
        elif field.is_repeated:
            getattr(message, field.name).append(valid_value(field, rules_of(field).repeated.items))
        else:
            setattr(message, field.name, valid_value(field, rules_of(field)))
    return message


def _fill_message(message: Message, field: FieldDescriptor, depth: int) -> None:
    below = getattr(message, field.name)
    if message_type(field).full_name == "google.protobuf.Timestamp":
        below.FromJsonString("2026-01-02T03:04:05.678Z")
    else:
        filled(below.add() if field.is_repeated else below, depth - 1)


def valid_value(field: FieldDescriptor, rules: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        if rules is not None and (allowed := getattr(rules.string, "in")):
            return allowed[0]
        if rules is not None and rules.string.pattern:
            return _PATTERNS[rules.string.pattern]
        return "té/x t"
    if field.type == FieldDescriptor.TYPE_ENUM:
        return enum_type(field).values[-1].number
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return max(rules.double.gte, 0.5) if rules is not None else 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\x00\xff"
    return 7 if field.type in _INT32 else 4_000_000_000_123


def wrong_requests(method: Method) -> Iterator[tuple[str, Message]]:
    """(field in REST spelling, a valid request with that one field made wrong)."""
    for field in method.descriptor.input_type.fields:
        if field.message_type is not None:
            continue
        for value in _wrong_values(field):
            request = valid_request(method)
            if field.is_repeated:
                getattr(request, field.name)[:] = value
            else:
                setattr(request, field.name, value)
            yield field.json_name, request


def _wrong_values(field: FieldDescriptor) -> Iterator[Any]:
    rules = rules_of(field)
    if field.is_repeated:
        if getattr(rules.repeated.items.string, "in"):
            yield ["bogus"]
        if rules.repeated.unique:
            yield ["360p", "360p"]
    elif field.type == FieldDescriptor.TYPE_STRING:
        yield "with\0nul" if not (getattr(rules.string, "in") or rules.string.pattern) else "bogus!"
        if rules.string.max_len:
            yield "x" * (rules.string.max_len + 1)
    elif field.type == FieldDescriptor.TYPE_ENUM:
        if rules.enum.defined_only:
            yield 99
    elif field.type in _INT32 and rules.int32.HasField("gte"):
        yield rules.int32.gte - 1
        if rules.int32.HasField("lte"):
            yield rules.int32.lte + 1
    elif field.type == FieldDescriptor.TYPE_DOUBLE and rules.double.HasField("gte"):
        yield rules.double.gte - 0.5


def rest_call(binding: Binding, request: Message) -> tuple[str, str, Any]:
    """(verb, path with query, JSON body or None) by which REST says the same as `request`."""
    tree = json_format.MessageToDict(request)
    path = binding.template
    for field in request.DESCRIPTOR.fields:
        mark = "{" + field.name + "}"
        if mark in path:
            path = path.replace(mark, quote(str(getattr(request, field.name)), safe=""))
            tree.pop(field.json_name, None)
    if binding.body == "*":
        return binding.verb, path, tree
    body = None
    if binding.body:
        body = tree.pop(request.DESCRIPTOR.fields_by_name[binding.body].json_name, {})
    pairs = [(name, value) for name, value in tree.items() if not isinstance(value, dict)]
    texts = [
        (name, json.dumps(value).strip('"') if not isinstance(value, str) else value) for name, value in pairs
    ]
    return binding.verb, path + (f"?{urlencode(texts)}" if texts else ""), body


def parsed(method: Method, tree: Any) -> Any:
    """A REST answer in the form that other transports' answers are compared in."""
    if method.rule.rest_envelope:
        assert tree["success"] is True
        tree = tree["data"]
    message = method.reply_type()
    json_format.ParseDict(tree, message)
    return json_format.MessageToDict(message)


def empty_reply(method: Method) -> bool:
    return method.reply_type is GetMessageClass(method.descriptor.output_type) and (
        method.descriptor.output_type.full_name == "google.protobuf.Empty"
    )
