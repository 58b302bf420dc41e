"""H.264 out of RTP into Annex B (RFC 6184), and the size of the picture out of its parameter set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.passthrough.media import Picture

_START = b"\x00\x00\x00\x01"
_IDR, _SPS, _PPS = 5, 7, 8
_STAP_A, _FU_A = 24, 28
# Profiles whose parameter sets tell the chroma format (ITU-T H.264 section 7.3.2.1.1).
_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class Assembler:
    """Remembers the parameter sets, so that each key frame can be decoded without what came before."""

    def __init__(self) -> None:
        self._sets: dict[int, bytes] = {}
        self._size = (0, 0)

    def __call__(self, parts: Sequence[bytes]) -> Picture | None:
        units = [unit for unit in _units(parts) if unit]
        kinds = {unit[0] & 0x1F for unit in units}
        for unit in units:
            kind = unit[0] & 0x1F
            if kind in (_SPS, _PPS):
                self._sets[kind] = unit
                if kind == _SPS:
                    self._size = picture_size(unit)
        if not any(1 <= kind <= _IDR for kind in kinds):
            return None
        key = _IDR in kinds
        if key:
            if not {_SPS, _PPS} <= kinds | self._sets.keys():
                return None
            units = [self._sets[kind] for kind in (_SPS, _PPS) if kind not in kinds] + units
        data = b"".join(_START + unit for unit in units)
        return Picture(data, key, *self._size)


def picture_size(unit: bytes) -> tuple[int, int]:
    """Width and height, cropped, of a sequence parameter set; (0, 0) when it can't be read."""
    try:
        return _size(_Bits(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")))
    except IndexError:
        return 0, 0


def _size(bits: _Bits) -> tuple[int, int]:
    profile = bits.take(8)
    bits.take(16)
    bits.unsigned()
    chroma = 1
    if profile in _HIGH:
        chroma = bits.unsigned()
        if chroma == 3:
            bits.take(1)
        bits.unsigned()
        bits.unsigned()
        bits.take(1)
        if bits.take(1):
            _skip_scaling(bits, 12 if chroma == 3 else 8)
    bits.unsigned()
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.unsigned()
        bits.unsigned()
        for _ in range(bits.unsigned()):
            bits.unsigned()
    bits.unsigned()
    bits.take(1)
    width = 16 * (bits.unsigned() + 1)
    height = 16 * (bits.unsigned() + 1)
    frames_only = bits.take(1)
    if not frames_only:
        height *= 2
        bits.take(1)
    bits.take(1)
    if bits.take(1):
        across = 2 if chroma in (1, 2) else 1
        down = (2 if chroma == 1 else 1) * (1 if frames_only else 2)
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
        width -= across * (left + right)
        height -= down * (top + bottom)
    return width, height


def _skip_scaling(bits: _Bits, lists: int) -> None:
    for index in range(lists):
        if bits.take(1):
            last = following = 8
            for _ in range(16 if index < 6 else 64):
                if following:
                    following = (last + bits.signed()) % 256
                last = following or last


def _units(parts: Sequence[bytes]) -> Iterator[bytes]:
    fragments: list[bytes] = []
    for part in parts:
        kind = part[0] & 0x1F
        if kind == _FU_A and len(part) > 2:
            if part[1] & 0x80:
                fragments = [bytes([part[0] & 0xE0 | part[1] & 0x1F])]
            fragments.append(part[2:])
            if part[1] & 0x40:
                yield b"".join(fragments)
                fragments = []
        elif kind == _STAP_A:
            position = 1
            while position + 2 <= len(part):
                length = int.from_bytes(part[position : position + 2])
                yield part[position + 2 : position + 2 + length]
                position += 2 + length
        elif kind < _STAP_A:
            yield part


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> int:
        """Raise IndexError at the end."""
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | (byte >> (7 - (self._position & 7)) & 1)
            self._position += 1
        return value

    def unsigned(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        value = self.unsigned()
        return (value + 1) // 2 if value & 1 else -(value // 2)
