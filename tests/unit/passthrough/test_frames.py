"""Payload formats: what senders split is put together again, bit by bit."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.passthrough import obu, vpx
from adapters.passthrough.frames import FrameBuilder
from adapters.passthrough.h264 import Assembler, picture_size
from adapters.passthrough.rtp import Packet


def encoded(codec: str, width: int, height: int, **options: str) -> bytes:
    """The first packet that an encoder makes."""
    container = av.open(io.BytesIO(), "w", format="null")
    stream = container.add_stream(codec, rate=10, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(np.zeros((height * 3 // 2, width), np.uint8), format="yuv420p")
    packets = [bytes(packet) for packet in [*stream.encode(frame), *stream.encode(None)]]
    return packets[0]


def units_of(annex_b: bytes) -> list[bytes]:
    return [
        unit for unit in annex_b.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01") if unit
    ]


@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
@pytest.mark.parametrize(("width", "height"), [(320, 180), (1920, 1080), (90, 160)])
def test_the_size_is_in_the_parameter_set(profile: str, width: int, height: int) -> None:
    annex_b = encoded("libx264", width, height, profile=profile, preset="ultrafast")
    (sps,) = [unit for unit in units_of(annex_b) if unit[0] & 0x1F == 7]
    assert picture_size(sps) == (width, height)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_assemblers(data: bytes) -> None:
    if data:
        picture_size(data)
        Assembler()([data])
        vpx.assemble_vp8([data])
        vpx.assemble_vp9([data])
        obu.assemble([data])


def test_h264_out_of_single_packed_and_fragmented_units() -> None:
    sps, pps, idr = b"\x67\x42\x00\x1e", b"\x68\xce", b"\x65" + bytes(range(1, 100))
    packed = b"\x78" + b"".join(len(unit).to_bytes(2) + unit for unit in (sps, pps))
    middle = len(idr) // 2
    fragments = [b"\x7c\x85" + idr[1:middle], b"\x7c\x45" + idr[middle:]]
    assembler = Assembler()
    picture = assembler([packed, *fragments])
    assert picture is not None
    assert picture.key
    assert picture.data == b"".join(b"\x00\x00\x00\x01" + unit for unit in (sps, pps, idr))
    again = assembler([idr])
    assert again is not None
    assert again.data == picture.data, "each key frame brings its parameter sets"
    delta = assembler([b"\x41rest"])
    assert delta is not None
    assert not delta.key
    assert Assembler()([idr]) is None, "without parameter sets nobody can decode it"


def test_vp8_with_every_extension() -> None:
    frame = encoded("libvpx", 160, 90)
    descriptor = b"\x90\xf0\x81\x02\x03\x04"
    half = len(frame) // 2
    picture = vpx.assemble_vp8([descriptor + frame[:half], b"\x00" + frame[half:]])
    assert picture is not None
    assert (picture.data, picture.key, picture.width, picture.height) == (frame, True, 160, 90)


def test_vp9_layers_become_a_superframe() -> None:
    # Flexible mode, inter-picture predicted off, begin and end of frame; the first with a scalability structure.
    sizes = b"\x30" + (160).to_bytes(2) + (90).to_bytes(2) + (320).to_bytes(2) + (180).to_bytes(2)
    low = bytes([0x80 | 0x20 | 0x10 | 0x08 | 0x04 | 0x02]) + b"\x81\x01" + b"\x00" + sizes
    high = bytes([0x80 | 0x20 | 0x10 | 0x08 | 0x04]) + b"\x81\x01" + b"\x03"
    picture = vpx.assemble_vp9([low + b"LOW", high + b"HIGHER"])
    assert picture is not None
    assert (picture.key, picture.width, picture.height) == (True, 320, 180)
    assert picture.data == b"LOWHIGHER" + b"\xc1" + b"\x03\x06" + b"\xc1"
    single = vpx.assemble_vp9([b"\xcc\x81\x01\x02alone"])
    assert single is not None
    assert not single.key


def test_av1_units_get_their_sizes_back() -> None:
    sequence, frame = b"\x08" + b"SEQ", b"\x30" + b"F" * 200
    first = bytes([0x40 | 2 << 4 | 8]) + bytes([len(sequence)]) + sequence + frame[:50]
    second = bytes([0x80 | 1 << 4]) + frame[50:]
    picture = obu.assemble([first, second])
    assert picture is not None
    assert picture.key
    assert picture.data == b"\x12\x00" + b"\x0a\x03SEQ" + b"\x32\xc8\x01" + b"F" * 200


def packet(timestamp: int, payload: bytes, *, marker: bool = True, lost: int = 0) -> Packet:
    return Packet(1, 96, 0, timestamp, marker, payload, lost)


def test_nothing_comes_between_a_loss_and_the_next_key_frame() -> None:
    key = b"\x10" + encoded("libvpx", 160, 90)
    delta = b"\x10" + b"\x01" + b"delta"
    builder = FrameBuilder("vp8")
    assert builder.push(packet(0, delta)) is None
    assert builder.push(packet(1, key)) is not None
    assert builder.push(packet(2, delta)) is not None
    assert builder.push(packet(3, delta, lost=1)) is None
    assert builder.wants_key
    assert builder.push(packet(4, delta)) is None
    assert builder.push(packet(5, key, lost=1)) is None, "its beginning may be lost"
    assert builder.push(packet(6, key)) is not None
    assert not builder.wants_key


def test_the_servers_farewell_is_no_picture() -> None:
    """LiveKit sends a tiny black key frame when a track is muted or taken back."""
    small = b"\x10" + encoded("libvpx", 8, 8)
    builder = FrameBuilder("vp8", trailer=b"TRAILER")
    assert builder.push(packet(0, small)) is None
    assert builder.wants_key
    assert builder.push(packet(1, b"\x10" + encoded("libvpx", 160, 90) + b"TRAILER")) is None


def test_a_frame_that_ends_without_its_marker_is_left_out() -> None:
    key = b"\x10" + encoded("libvpx", 160, 90)
    builder = FrameBuilder("vp8")
    assert builder.push(packet(0, key, marker=False)) is None
    picture = builder.push(packet(1, key))
    assert picture is not None
    assert picture.data == key[1:]
    assert builder.push(packet(2, b"")) is None, "padding"
