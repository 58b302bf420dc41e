"""The transport stream reader against PyAV and against noise."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.mpegts import PACKET, NotTransportStream, scan_segment, whole_start
from tests.media import Clip, ClipFactory


def _packets(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"video": [], "audio": []}
    with av.open(str(path), "r") as container:
        for packet in container.demux():
            if packet.pts is not None:
                found[packet.stream.type].append(packet.pts)
    return found


def test_agrees_with_pyav(clips: ClipFactory) -> None:
    """VC-64: times, frame count and codec as a full demuxer sees them."""
    path = clips.clip(Clip(extension="ts"))
    scan, truth = scan_segment(path.read_bytes()), _packets(path)
    assert scan.video_frames == len(truth["video"]) == 75
    assert scan.video_first_pts == min(truth["video"])
    assert scan.video_last_pts == max(truth["video"])
    assert scan.audio_first_pts == min(truth["audio"])
    assert scan.audio_end_pts == max(truth["audio"]) + 1920
    assert scan.starts_with_idr
    with av.open(str(path), "r") as container:
        context = container.streams.video[0].codec_context
        assert context.extradata is None or scan.video_codec.startswith("avc1.")
        assert int(scan.video_codec[-2:], 16) == container.streams.video[0].codec_context.level
    assert scan.codecs == (scan.video_codec, "mp4a.40.2")


def test_sound_only(clips: ClipFactory) -> None:
    path = clips.derived("soundts", "ts", "-i", clips.sound_only(), "-c", "copy")
    scan = scan_segment(path.read_bytes())
    assert (scan.video_frames, scan.video_first_pts, scan.codecs) == (0, None, ("mp4a.40.2",))


def test_start_without_idr(clips: ClipFactory) -> None:
    """Apple [7.4]: a cut in the middle of a group of pictures is seen."""
    data = clips.clip(Clip(extension="ts", options=("-g", "250"))).read_bytes()
    tables, rest = data[: 3 * 188], data[len(data) // 376 * 188 :]
    assert not scan_segment(tables + rest).starts_with_idr


@pytest.mark.parametrize("damage", ["", "short", "sync", "text"])
def test_not_a_transport_stream(damage: str, clips: ClipFactory) -> None:
    good = clips.clip(Clip(extension="ts")).read_bytes()
    broken = {
        "": b"",
        "short": good[:-1],
        "sync": good[:188] + b"\0" + good[189:],
        "text": b"G" + bytes(187),
    }[damage]
    with pytest.raises(NotTransportStream):
        scan_segment(broken)


@given(st.lists(st.binary(min_size=187, max_size=187), min_size=1, max_size=12))
def test_noise_is_refused_or_read(packets: list[bytes]) -> None:
    """2.7: never anything but our own error."""
    data = b"".join(b"G" + packet for packet in packets)
    try:
        scan_segment(data)
    except NotTransportStream:
        pass


@given(at=st.integers(0, 400), garbage=st.binary(min_size=1, max_size=3000), cut=st.integers(0, 60 * PACKET))
def test_an_unfinished_segment_is_refused_or_measured(
    clips: ClipFactory, at: int, garbage: bytes, cut: int
) -> None:
    """Never anything but our own error, and never more than there is."""
    data = bytearray(clips.clip(Clip(extension="ts")).read_bytes())
    data[at * 97 : at * 97 + len(garbage)] = garbage
    left = bytes(data[: len(data) - cut])
    try:
        whole = whole_start(left)
    except NotTransportStream:
        return
    assert 0 <= whole.size <= len(left)
    assert whole.size % PACKET == 0


def test_what_is_whole_is_left_alone(clips: ClipFactory) -> None:
    """Also with reordered pictures, at another rate, and where the clock of 33 bits begins anew."""
    reordered = clips.clip(
        Clip(extension="ts", fps="30000/1001", options=("-bf", "3", "-preset", "veryfast"))
    )
    wrapped = clips.derived("wrap", "ts", "-i", reordered, "-c", "copy", "-output_ts_offset", "95440.9")
    frames = scan_segment(reordered.read_bytes()).video_frames
    assert scan_segment(wrapped.read_bytes()).video_last_pts > 1 << 32  # type: ignore[operator]
    for path in (reordered, wrapped):
        whole = whole_start(path.read_bytes())
        assert whole.size == path.stat().st_size
        assert whole.duration_sec == pytest.approx(frames * 1001 / 30000, abs=0.001)


def test_sound_alone_is_measured_to_its_last_whole_packet(clips: ClipFactory) -> None:
    path = clips.derived("soundts", "ts", "-i", clips.sound_only(), "-c", "copy")
    data = path.read_bytes()
    scan = scan_segment(data)
    assert scan.audio_end_pts is not None
    assert scan.audio_first_pts is not None
    all_of_it = (scan.audio_end_pts - scan.audio_first_pts) / 90_000
    assert whole_start(data).duration_sec == pytest.approx(all_of_it)
    torn = whole_start(data[: len(data) - PACKET - 50])
    assert 0 < torn.duration_sec < all_of_it
    assert scan_segment(data[: torn.size]).audio_end_pts == pytest.approx(
        scan.audio_first_pts + torn.duration_sec * 90_000
    )


def test_without_a_key_frame_or_a_second_picture_there_is_nothing(clips: ClipFactory) -> None:
    data = clips.clip(Clip(extension="ts", options=("-g", "250"))).read_bytes()
    starts = [at for at in range(0, len(data), PACKET) if data[at + 1] & 0x40]
    keyless = data[: 3 * PACKET] + data[starts[-8] :]
    for nothing in (b"", data[:PACKET], data[: 3 * PACKET], data[: starts[4]], keyless):
        with pytest.raises(NotTransportStream):
            whole_start(nothing)
