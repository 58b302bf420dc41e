"""VP8 and VP9 out of RTP (RFC 7741, RFC 9628)."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.passthrough.media import Picture

_VP8_KEY_START = b"\x9d\x01\x2a"


def assemble_vp8(parts: Sequence[bytes]) -> Picture | None:
    data = b"".join(part[_vp8_descriptor(part) :] for part in parts)
    if not data:
        return None
    if data[0] & 1:
        return Picture(data, key=False)
    if len(data) < 10 or data[3:6] != _VP8_KEY_START:
        return None
    width = int.from_bytes(data[6:8], "little") & 0x3FFF
    height = int.from_bytes(data[8:10], "little") & 0x3FFF
    return Picture(data, key=True, width=width, height=height)


def _vp8_descriptor(part: bytes) -> int:
    """Its length."""
    length = 1
    if part[0] & 0x80 and len(part) > 1:
        extensions = part[1]
        length += 1
        if extensions & 0x80 and len(part) > length:
            length += 2 if part[length] & 0x80 else 1
        length += bool(extensions & 0x40) + bool(extensions & 0x30)
    return length


def assemble_vp9(parts: Sequence[bytes]) -> Picture | None:
    """The spatial layers of a picture become one superframe: decoders would take the first for the whole otherwise."""
    layers: list[list[bytes]] = []
    key = False
    size = (0, 0)
    for part in parts:
        flags = part[0]
        length, sizes = _vp9_descriptor(part)
        if flags & 0x08 or not layers:
            layers.append([])
        if len(layers) == 1 and not layers[0]:
            key = not flags & 0x40
        layers[-1].append(part[length:])
        size = max([size, *sizes])
    whole = [b"".join(layer) for layer in layers]
    whole = [layer for layer in whole if layer]
    if not whole:
        return None
    return Picture(_superframe(whole), key, *size)


def _superframe(layers: Sequence[bytes]) -> bytes:
    # The last layer may bring an index of its own (VP9 bitstream, annex B).
    if len(layers) == 1 or len(layers) > 8:
        return b"".join(layers)
    width = (max(len(layer) for layer in layers).bit_length() + 7) // 8
    marker = bytes([0xC0 | (width - 1) << 3 | (len(layers) - 1)])
    index = b"".join(len(layer).to_bytes(width, "little") for layer in layers)
    return b"".join(layers) + marker + index + marker


def _vp9_descriptor(part: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Its length and the sizes of the layers, if it tells them. Malformed ones reach past the end."""
    flags = part[0]
    at = 1
    if flags & 0x80:
        at += 2 if _byte(part, at) & 0x80 else 1
    if flags & 0x20:
        at += 1 if flags & 0x10 else 2
    if flags & 0x50 == 0x50:
        for _ in range(3):
            at += 1
            if not _byte(part, at - 1) & 1:
                break
    sizes: list[tuple[int, int]] = []
    if flags & 0x02:
        scalability = _byte(part, at)
        at += 1
        if scalability & 0x10:
            for _ in range((scalability >> 5) + 1):
                sizes.append((int.from_bytes(part[at : at + 2]), int.from_bytes(part[at + 2 : at + 4])))
                at += 4
        if scalability & 0x08:
            count = _byte(part, at)
            at += 1
            for _ in range(count):
                at += 1 + (_byte(part, at) >> 2 & 3)
    return at, sizes


def _byte(part: bytes, at: int) -> int:
    return part[at] if at < len(part) else 0
