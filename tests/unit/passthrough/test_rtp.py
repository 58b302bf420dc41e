"""Packets on the wire, their order, and what is asked for again."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.passthrough.reorder import GIVE_UP_SEC, ReorderBuffer
from adapters.passthrough.rtp import (
    Packet,
    Reception,
    Unwrapper,
    is_rtcp,
    nack,
    parse_packet,
    picture_loss,
    receiver_report,
    sender_reports,
    unwrap_rtx,
)


def packet(sequence: int) -> Packet:
    return Packet(1, 96, sequence & 0xFFFF, 0, False, bytes([sequence & 0xFF]))


def test_a_packet_with_everything_on_it() -> None:
    header = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 0x80 | 96, 7, 90_000, 1234)
    data = header + b"CSRC" + struct.pack("!HH", 0xBEDE, 1) + b"EXT!" + b"payload" + b"\x00\x00\x03"
    parsed = parse_packet(data)
    assert parsed is not None
    assert (parsed.ssrc, parsed.payload_type, parsed.sequence, parsed.timestamp) == (1234, 96, 7, 90_000)
    assert (parsed.marker, parsed.payload) == (True, b"payload")


@given(st.binary(max_size=40))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    parse_packet(data)
    is_rtcp(data)
    list(sender_reports(data))


def test_a_retransmission_is_what_it_repeats() -> None:
    repeated = unwrap_rtx(Packet(2, 97, 1, 5, True, b"\x01\x02data"), 1, 96)
    assert repeated == Packet(1, 96, 0x0102, 5, True, b"data")
    assert unwrap_rtx(Packet(2, 97, 1, 5, True, b""), 1, 96) is None


def test_a_sender_report_is_found_in_a_compound_packet() -> None:
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 42, 2_208_988_801, 1 << 31, 90_000, 1, 2)
    other = struct.pack("!BBHI", 0x80, 201, 1, 42)
    (found,) = sender_reports(other + report)
    assert (found.ssrc, found.ntp_ns, found.timestamp) == (42, 1_500_000_000, 90_000)
    assert found.middle == (2_208_988_801 & 0xFFFF) << 16 | 1 << 15


def test_lost_packets_are_asked_for_in_few_words() -> None:
    data = nack(1, 2, [65_535, 3, 5, 19, 20])
    assert struct.unpack("!BBHII", data[:12]) == (0x81, 205, 5, 1, 2)
    assert struct.unpack("!HHHHHH", data[12:]) == (3, 1 << 1 | 1 << 15, 20, 0, 65_535, 0)
    assert struct.unpack("!BBHII", picture_loss(1, 2)) == (0x81, 206, 2, 1, 2)


def test_reports_are_split_after_31_streams() -> None:
    receptions = [Reception(ssrc, 1, 2, 3, 4, 5, 6) for ssrc in range(40)]
    first, second = receiver_report(9, receptions)
    assert (first[0] & 0x1F, second[0] & 0x1F) == (31, 9)
    assert len(second) == 8 + 9 * 24


def test_counters_grow_over_their_end_and_know_what_is_late() -> None:
    counter = Unwrapper(16)
    assert [counter.unwrap(value) for value in (65_534, 65_535, 1, 0, 2)] == [
        65_534,
        65_535,
        65_537,
        65_536,
        65_538,
    ]


@given(st.integers(0, 2**32), st.integers(0, 65_535))
def test_packets_come_out_in_order_whatever_order_they_come_in(seed: int, start: int) -> None:
    dice = random.Random(seed)
    buffer = ReorderBuffer(nack=True)
    out = buffer.add(packet(start), 0.0)
    for begin in range(1, 200, 10):
        some = [*range(begin, begin + 10), dice.randrange(begin + 9)]
        dice.shuffle(some)
        for offset in some:
            out += buffer.add(packet(start + offset), 0.0)
    assert [one.sequence for one in out] == list(range(start, start + 201))
    assert all(one.lost == 0 for one in out)
    assert not buffer.waiting


def test_a_gap_is_asked_for_and_filled() -> None:
    buffer = ReorderBuffer(nack=True)
    assert len(buffer.add(packet(1), 0.0)) == 1
    assert buffer.add(packet(4), 0.0) == []
    assert buffer.service(0.0)[0] == [], "it may only be out of order"
    assert buffer.service(0.02)[0] == [2, 3]
    assert buffer.service(0.05)[0] == []
    assert buffer.service(0.15)[0] == [2, 3]
    assert [one.sequence for one in buffer.add(packet(2), 0.2)] == [2]
    assert [one.sequence for one in buffer.add(packet(3), 0.2)] == [3, 4]
    assert (buffer.lost, buffer.waiting) == (0, False)


def test_what_never_comes_is_given_up() -> None:
    buffer = ReorderBuffer(nack=True)
    buffer.add(packet(1), 0.0)
    buffer.add(packet(4), 0.0)
    buffer.add(packet(6), 0.5)
    asked, released = buffer.service(GIVE_UP_SEC + 0.1)
    assert [(one.sequence, one.lost) for one in released] == [(4, 2)]
    assert asked == [5]
    assert [(one.sequence, one.lost) for one in buffer.flush()] == [(6, 1)]
    assert buffer.lost == 3


def test_another_beginning_is_no_loss_of_thousands() -> None:
    buffer = ReorderBuffer(nack=True)
    buffer.add(packet(1), 0.0)
    (released,) = buffer.add(packet(20_000), 0.0)
    assert (released.sequence, released.lost, buffer.waiting) == (20_000, 1, False)


@pytest.mark.parametrize("nacked", [True, False])
def test_only_what_can_be_sent_again_is_asked_for(nacked: bool) -> None:
    buffer = ReorderBuffer(nack=nacked)
    buffer.add(packet(1), 0.0)
    buffer.add(packet(3), 0.0)
    assert bool(buffer.service(0.1)[0]) is nacked
