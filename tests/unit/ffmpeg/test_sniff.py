"""Container names by magic bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ffmpeg.sniff import ALLOWED_FORMATS, FORMAT_WHITELIST, sniff, sniff_bytes
from tests.media import CONTAINERS, ClipFactory

_EXPECTED = {"mp4": "mov", "mov": "mov", "m4v": "mov", "3gp": "mov", "mkv": "matroska", "webm": "matroska",
             "avi": "avi", "flv": "flv", "wmv": "asf", "ts": "mpegts", "mts": "mpegts", "ogv": "ogg"}  # fmt: skip


@pytest.mark.parametrize("extension", sorted(CONTAINERS))
def test_containers(extension: str, clips: ClipFactory) -> None:
    """VC-04."""
    assert sniff(clips.container(extension)) == _EXPECTED[extension]


@pytest.mark.parametrize(
    ("extension", "name"), [("mp3", "mp3"), ("flac", "flac"), ("wav", "wav"), ("m4a", "mov")]
)
def test_sound(extension: str, name: str, clips: ClipFactory) -> None:
    assert sniff(clips.sound_only(extension)) == name


def test_raw_sound(clips: ClipFactory) -> None:
    adts = clips.derived("adts", "aac", "-i", clips.sound_only(), "-c", "copy")
    assert sniff(adts) == "aac"
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    assert sniff_bytes(tagged + b"\xff\xf1" + bytes(20)) == "aac"
    assert sniff_bytes(tagged + b"\xff\xfb" + bytes(20)) == "mp3"
    assert sniff_bytes(tagged + b"fLaC" + bytes(20)) == "flac"


def test_transport_stream_that_starts_in_the_middle(clips: ClipFactory) -> None:
    data = clips.container("ts").read_bytes()
    assert sniff_bytes(data[100:20_000]) == "mpegts"


def test_not_media(clips: ClipFactory) -> None:
    """2.2: no text format, no picture, nothing that names other files."""
    assert {name: sniff(path) for name, path in clips.not_media().items() if sniff(path)} == {}


@given(st.binary(max_size=2000))
def test_anything(data: bytes) -> None:
    assert sniff_bytes(data) in (None, *ALLOWED_FORMATS)


def test_whitelist_names_no_dangerous_demuxer() -> None:
    """2.2."""
    dangerous = {
        "hls",
        "dash",
        "concat",
        "sdp",
        "image2",
        "lavfi",
        "libopenmpt",
        "tty",
        "xbin",
        "rtsp",
        "applehttp",
    }
    assert not dangerous & set(FORMAT_WHITELIST.split(","))
