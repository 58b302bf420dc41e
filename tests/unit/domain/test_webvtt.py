"""WebVTT parsing and cutting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.webvtt import Cue, cut_cues, language_tag, parse_cues

_DOCUMENT = """WEBVTT

NOTE nothing to see

STYLE
::cue { color: red }

00:00.500 --> 00:02.000
Hello <i>you</i>

second
01:00:02.500 --> 01:00:04.000 align:start
Two
lines

00:09.000 --> 00:08.000
backwards

00:20.000 --> 00:21.000

"""


def test_parse() -> None:
    assert parse_cues(_DOCUMENT) == (
        Cue(0.5, 2.0, "", "Hello <i>you</i>"),
        Cue(3602.5, 3604.0, "align:start", "Two\nlines"),
    )
    assert parse_cues(_DOCUMENT.replace("\n", "\r\n"))[0].text == "Hello <i>you</i>"


def test_cut() -> None:
    """RFC 8216 3.5: a cue that crosses a boundary is in both segments; every segment carries the time map."""
    cues = (Cue(1, 2, "", "one"), Cue(3.5, 4.5, "", "both"), Cue(7, 8, "", "last"))
    segments = cut_cues(cues, length_sec=4, total_sec=10, start_pts=126_000)
    assert [duration for _, duration in segments] == [4, 4, 2]
    assert segments[0][0] == (
        "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:126000,LOCAL:00:00:00.000\n\n00:00:01.000 --> 00:00:02.000\none\n\n"
        "00:00:03.500 --> 00:00:04.500\nboth\n"
    )
    assert "both" in segments[1][0]
    assert segments[2][0] == "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:126000,LOCAL:00:00:00.000\n"


@given(
    st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 9000)), max_size=8),
    st.integers(1, 30),
)
def test_no_cue_is_lost(times: list[tuple[int, int]], length: int) -> None:
    cues = [Cue(a / 1000, (a + b) / 1000, "", f"cue{i}") for i, (a, b) in enumerate(times)]
    segments = cut_cues(cues, length_sec=length, total_sec=100, start_pts=0)
    assert sum(duration for _, duration in segments) == pytest.approx(100)
    found = {cue for text, _ in segments for cue in parse_cues(text)}
    assert found == set(cues)


@given(st.text(alphabet="0123456789:.->\n \tWEBVT", max_size=300))
def test_parse_never_fails(text: str) -> None:
    """2.7: parsers take anything."""
    assert all(cue.end_sec > cue.start_sec for cue in parse_cues(text))


@pytest.mark.parametrize(
    ("code", "tag"),
    [("ger", "de"), ("deu", "de"), ("eng", "en"), ("en", "en"), ("pt-BR", "pt-br"), ("gsw", "gsw"), ("und", "und"),
     ("", "und"), ('x"y', "und"), ("../../etc", "und"), ("english", "und")],
)  # fmt: skip
def test_language(code: str, tag: str) -> None:
    """BCP 47's shortest tag; what is none becomes `und`, so that nothing odd reaches a key or a playlist."""
    assert language_tag(code) == tag
