"""The RTMP client's own parsers: a hostile server can only make it give up."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.recorder.outputs import amf
from adapters.recorder.outputs.link import LinkError
from adapters.recorder.outputs.rtmp import RtmpUrl, _message, _Received

values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.dictionaries(st.text(min_size=1, max_size=10), inner, max_size=4),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(values, max_size=4))
def test_commands_survive_their_encoding(sent: list[Any]) -> None:
    with suppress(amf.BadAmf):  # deeper than servers nest
        assert amf.decode(amf.encode(*sent)) == sent


def test_long_texts_and_metadata_are_written_in_their_own_ways() -> None:
    text = "x" * 70_000
    assert amf.decode(amf.encode(text)) == [text]
    assert amf.decode(amf.ecma_array({"width": 640.0, "stereo": True})) == [{"width": 640.0, "stereo": True}]


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_command_or_refused(data: bytes) -> None:
    with suppress(amf.BadAmf):
        amf.decode(data)


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 200))
def test_any_bytes_from_a_server_are_messages_or_refused(data: bytes, step: int) -> None:
    received = _Received()
    with suppress(LinkError):
        for start in range(0, len(data), step):
            received.raw += data[start : start + step]
            list(received.messages())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(3, 8), st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=700)),
        max_size=5,
    ),
    st.integers(1, 64),
)
def test_messages_survive_being_cut_into_chunks(sent: list[tuple[int, int, bytes]], step: int) -> None:
    """With extended timestamps, which come after 4 h 39 min, in every chunk."""
    data = b"".join(_message(channel, 9, at, 1, body, 128) for channel, at, body in sent)
    received = _Received()
    got: list[tuple[int, bytes]] = []
    for start in range(0, len(data), step):
        received.raw += data[start : start + step]
        got += received.messages()
    assert got == [(9, body) for _, _, body in sent]
    assert not received.raw


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtmp://a.example/live/key", (False, "a.example", 1935, "live", "key")),
        (
            "rtmps://a.example:8443/app/inst/key?x=1&y=/2",
            (True, "a.example", 8443, "app/inst", "key?x=1&y=/2"),
        ),
        ("rtmps://u:p@a.example/rtmp/FB-1", (True, "a.example", 443, "rtmp", "FB-1")),
        ("rtmp://[2001:db8::1]/live/k", (False, "2001:db8::1", 1935, "live", "k")),
    ],
)
def test_urls_are_taken_apart(url: str, expected: tuple[bool, str, int, str, str]) -> None:
    """The key is what follows the last slash of the path, with the query; it is no part of what is sent as address."""
    parsed = RtmpUrl.parse(url)
    assert (parsed.secure, parsed.host, parsed.port, parsed.app, parsed.key) == expected
    assert parsed.key not in parsed.tc_url
    assert "u:p" not in parsed.tc_url
    assert parsed.key not in repr(parsed)


def test_depth_is_bounded() -> None:
    began = time.process_time()
    nested = b"\x03\x00\x01a" * 10_000
    with pytest.raises(amf.BadAmf):
        amf.decode(nested)
    assert time.process_time() - began < 1
    assert math.isnan(float(str(amf.decode(amf.encode(math.nan))[0])))
