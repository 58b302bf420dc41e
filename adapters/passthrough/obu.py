"""AV1 out of RTP (AOM's RTP payload format) into temporal units with sizes, as files want them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.passthrough.media import Picture

_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _TILE_LIST, _PADDING = 1, 2, 8, 15
_HAS_SIZE, _HAS_EXTENSION = 0x02, 0x04
_DELIMITER = b"\x12\x00"


def assemble(parts: Sequence[bytes]) -> Picture | None:
    units = []
    key = False
    for element in _elements(parts):
        if not element:
            continue
        kind = element[0] >> 3 & 0x0F
        if kind in (_TEMPORAL_DELIMITER, _TILE_LIST, _PADDING):
            continue
        key = key or kind == _SEQUENCE_HEADER
        units.append(_sized(element))
    return Picture(_DELIMITER + b"".join(units), key) if units else None


def _elements(parts: Sequence[bytes]) -> Iterator[bytes]:
    """The OBUs, put together where they cross packets."""
    open_one = b""
    for part in parts:
        head = part[0]
        continues, goes_on, count = head & 0x80, head & 0x40, head >> 4 & 3
        elements = list(_split(part, count))
        for index, element in enumerate(elements):
            if index == 0 and continues:
                element = open_one + element  # noqa: PLW2901 - the element is whole only now
            elif open_one:
                yield open_one
            open_one = b""
            if index == len(elements) - 1 and goes_on:
                open_one = element
            else:
                yield element
    if open_one:
        yield open_one


def _split(part: bytes, count: int) -> Iterator[bytes]:
    at = 1
    index = 0
    while at < len(part):
        index += 1
        if index == count:
            yield part[at:]
            return
        length, at = _read_leb128(part, at)
        yield part[at : at + length]
        at += length


def _sized(element: bytes) -> bytes:
    if element[0] & _HAS_SIZE:
        return element
    header = 2 if element[0] & _HAS_EXTENSION else 1
    body = element[header:]
    return bytes([element[0] | _HAS_SIZE]) + element[1:header] + _leb128(len(body)) + body


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, at
