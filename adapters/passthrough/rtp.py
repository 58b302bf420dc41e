"""RTP and RTCP on the wire (RFC 3550, 4585, 4588), as much of it as a receiver needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_HEADER = struct.Struct("!BBHII")
_NTP_EPOCH_SEC = 2_208_988_800  # from 1900 to 1970
_SENDER_REPORT, _RECEIVER_REPORT, _RTPFB, _PSFB = 200, 201, 205, 206
_NACK, _PLI = 1, 1
_MOST_REPORTS = 31


@dataclass(slots=True)
class Packet:
    """`sequence` grows beyond 16 bits once the reorder buffer has seen it; `lost` packets before it never came."""

    ssrc: int
    payload_type: int
    sequence: int
    timestamp: int
    marker: bool
    payload: bytes
    lost: int = 0


@dataclass(frozen=True, slots=True)
class SenderReport:
    """At `ntp_ns` since 1970 by the sender's clock the stream's clock stood at `timestamp`; `middle` goes into answers."""

    ssrc: int
    ntp_ns: int
    timestamp: int
    middle: int


@dataclass(frozen=True, slots=True)
class Reception:
    """One block of a receiver report; `fraction` in 1/256, `since_report` in 1/65536 s."""

    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    middle: int
    since_report: int


def parse_packet(data: bytes) -> Packet | None:
    """None for what is no RTP packet."""
    if len(data) < _HEADER.size:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    begin = _HEADER.size + 4 * (first & 0x0F)
    end = len(data)
    if first & 0x10:
        if end < begin + 4:
            return None
        begin += 4 + 4 * int.from_bytes(data[begin + 2 : begin + 4])
    if first & 0x20:
        end -= data[-1]
    if first >> 6 != 2 or begin > end:
        return None
    return Packet(ssrc, second & 0x7F, sequence, timestamp, second > 0x7F, data[begin:end])


def unwrap_rtx(packet: Packet, ssrc: int, payload_type: int) -> Packet | None:
    """What the retransmission repeats; None for padding (RFC 4588)."""
    if len(packet.payload) < 2:
        return None
    sequence = int.from_bytes(packet.payload[:2])
    return Packet(ssrc, payload_type, sequence, packet.timestamp, packet.marker, packet.payload[2:])


def is_rtcp(data: bytes) -> bool:
    """RFC 5761 section 4."""
    return len(data) >= 8 and 192 <= data[1] <= 223


def sender_reports(data: bytes) -> Iterator[SenderReport]:
    """Those of a compound packet; what is malformed ends it."""
    position = 0
    while position + 8 <= len(data):
        length = 4 * (int.from_bytes(data[position + 2 : position + 4]) + 1)
        if data[position + 1] == _SENDER_REPORT and position + 20 <= len(data):
            ssrc, seconds, fraction, timestamp = struct.unpack_from("!IIII", data, position + 4)
            ntp_ns = (seconds - _NTP_EPOCH_SEC) * 1_000_000_000 + (fraction * 1_000_000_000 >> 32)
            middle = (seconds & 0xFFFF) << 16 | fraction >> 16
            yield SenderReport(ssrc, ntp_ns, timestamp, middle)
        position += length


def receiver_report(ours: int, receptions: Sequence[Reception]) -> Iterator[bytes]:
    """Packets of at most 31 blocks each."""
    for start in range(0, len(receptions), _MOST_REPORTS):
        some = receptions[start : start + _MOST_REPORTS]
        blocks = b"".join(
            struct.pack(
                "!IIIIII",
                one.ssrc,
                one.fraction << 24 | max(0, min(one.lost, 0x7FFFFF)),
                one.highest & 0xFFFFFFFF,
                one.jitter & 0xFFFFFFFF,
                one.middle,
                one.since_report & 0xFFFFFFFF,
            )
            for one in some
        )
        yield struct.pack("!BBHI", 0x80 | len(some), _RECEIVER_REPORT, 1 + 6 * len(some), ours) + blocks


def nack(ours: int, ssrc: int, sequences: Iterable[int]) -> bytes:
    """Asks for packets again (RFC 4585 section 6.2.1)."""
    items: list[list[int]] = []
    for sequence in sorted(one & 0xFFFF for one in sequences):
        if items and 0 < sequence - items[-1][0] <= 16:
            items[-1][1] |= 1 << (sequence - items[-1][0] - 1)
        else:
            items.append([sequence, 0])
    body = b"".join(struct.pack("!HH", first, following) for first, following in items)
    return struct.pack("!BBHII", 0x80 | _NACK, _RTPFB, 2 + len(items), ours, ssrc) + body


def picture_loss(ours: int, ssrc: int) -> bytes:
    """Asks for a key frame (RFC 4585 section 6.3.1)."""
    return struct.pack("!BBHII", 0x80 | _PLI, _PSFB, 2, ours, ssrc)


class Unwrapper:
    """Makes a counter that wraps at 2**`bits` grow for ever; late values stay below newer ones."""

    __slots__ = ("_half", "_last", "_mask")

    def __init__(self, bits: int) -> None:
        self._mask = (1 << bits) - 1
        self._half = 1 << (bits - 1)
        self._last: int | None = None

    def unwrap(self, value: int) -> int:
        if self._last is None:
            self._last = value
            return value
        ahead = (value - self._last) & self._mask
        if ahead < self._half:
            self._last += ahead
            return self._last
        return self._last + ahead - self._mask - 1
