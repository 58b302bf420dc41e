"""AMF0, the encoding of RTMP's commands."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Value = float | bool | str | Mapping[str, "Value"] | Sequence["Value"] | None
_MAX_DEPTH = 8


class BadAmf(ValueError):
    """Not AMF0, or more than a server has reason to send."""


def encode(*values: Value) -> bytes:
    return b"".join(map(_one, values))


def ecma_array(fields: Mapping[str, Value]) -> bytes:
    """An associative array, as onMetaData is usually written."""
    return b"\x08" + struct.pack(">I", len(fields)) + _fields(fields)


def _one(value: Value) -> bytes:
    if value is None:
        return b"\x05"
    if isinstance(value, bool):
        return b"\x01" + bytes([value])
    if isinstance(value, int | float):
        return b"\x00" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        if len(text) > 0xFFFF:
            return b"\x0c" + struct.pack(">I", len(text)) + text
        return b"\x02" + struct.pack(">H", len(text)) + text
    if isinstance(value, Mapping):
        return b"\x03" + _fields(value)
    raise TypeError(type(value).__name__)


def _fields(fields: Mapping[str, Value]) -> bytes:
    written = bytearray()
    for name, value in fields.items():
        text = name.encode()
        written += struct.pack(">H", len(text)) + text + _one(value)
    return bytes(written) + b"\x00\x00\x09"


def decode(data: bytes) -> list[Value]:
    """All values of a command. Raise BadAmf."""
    values: list[Value] = []
    at = 0
    try:
        while at < len(data):
            value, at = _read(data, at, 0)
            values.append(value)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadAmf("truncated") from error
    return values


def _read(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if depth > _MAX_DEPTH:
        raise BadAmf("too deep")
    kind, at = data[at], at + 1
    match kind:
        case 0x00:
            return struct.unpack_from(">d", data, at)[0], at + 8
        case 0x01:
            return bool(data[at]), at + 1
        case 0x02:
            return _text(data, at)
        case 0x03:
            return _read_fields(data, at, depth)
        case 0x05 | 0x06:
            return None, at
        case 0x08:
            return _read_fields(data, at + 4, depth)
        case 0x0A:
            count = struct.unpack_from(">I", data, at)[0]
            at += 4
            items: list[Value] = []
            for _ in range(min(count, len(data))):
                item, at = _read(data, at, depth + 1)
                items.append(item)
            return items, at
        case 0x0B:
            return struct.unpack_from(">d", data, at)[0], at + 10
        case 0x0C:
            size = struct.unpack_from(">I", data, at)[0]
            return data[at + 4 : at + 4 + size].decode(), at + 4 + size
        case _:
            raise BadAmf("unknown type")


def _text(data: bytes, at: int) -> tuple[str, int]:
    size = struct.unpack_from(">H", data, at)[0]
    return data[at + 2 : at + 2 + size].decode(), at + 2 + size


def _read_fields(data: bytes, at: int, depth: int) -> tuple[dict[str, Value], int]:
    fields: dict[str, Value] = {}
    while True:
        name, at = _text(data, at)
        if not name and data[at] == 0x09:
            return fields, at + 1
        fields[name], at = _read(data, at, depth + 1)
