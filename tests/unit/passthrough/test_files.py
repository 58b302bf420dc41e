"""Files of one track: what went in comes out, at the right time."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.passthrough.files import OggFile, ogg_checksum, opus_duration
from adapters.passthrough.media import Frame
from adapters.passthrough.sdp import Codec, Media
from adapters.passthrough.stream import ClockReading, Stream
from adapters.passthrough.timeline import TimelineWriter, read_timelines
from adapters.passthrough.writing import NS, CodecChanged, TrackWriter

SILENCE = b"\xf8\xff\xfe"


def opus(position: int, data: bytes = SILENCE, at_ns: int = 0) -> Frame:
    return Frame(data, position, key=True, arrival_ns=at_ns)


def stream_of(codec: str = "opus") -> Stream:
    media = Media(
        "1",
        "audio",
        "",
        active=True,
        track_id="TR",
        codecs={},
        rtx_types={},
        ssrcs=(1,),
        repairs={},
        lines=(),
    )
    stream = Stream(media, 1, b"", lambda _stream, _frame: None, 0.0)
    stream.codec = Codec(codec, 111, 48_000)
    return stream


def slow_checksum(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


@given(st.binary(max_size=200))
def test_the_checksum_of_ogg(data: bytes) -> None:
    assert ogg_checksum(data) == slow_checksum(data)


@pytest.mark.parametrize(
    ("toc", "samples"),
    [(0xF8, 960), (0xF9, 1920), (0xE0, 120), (0x08, 960), (0x18, 2880), (0x68, 960), (0x60, 480)],
)
def test_how_long_a_packet_sounds(toc: int, samples: int) -> None:
    assert opus_duration(bytes([toc, 0])) == samples


def test_packets_with_a_count_and_none() -> None:
    assert opus_duration(b"\xfb\x03") == 2880
    assert opus_duration(b"") == opus_duration(b"\xfb") == 0


def test_gaps_become_silence_and_doubles_are_left_out(tmp_path: Path) -> None:
    file = OggFile(tmp_path / "a.ogg")
    assert file.write(opus(0), 0)
    assert not file.write(opus(0), 0)
    assert file.write(opus(960 * 20), 960 * 20)
    assert file.write(opus(0), 960 * 21 + 480)
    file.pad(960 * 75)
    file.finish()
    with av.open(str(tmp_path / "a.ogg")) as container:
        assert container.streams.audio[0].codec_context.name == "opus"
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    assert decoded == 960 * 75


def test_a_page_a_second_is_on_disk(tmp_path: Path) -> None:
    file = OggFile(tmp_path / "a.ogg")
    for index in range(120):
        file.write(opus(0), 960 * index)
    with av.open(str(tmp_path / "a.ogg")) as container:
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    assert decoded >= 960 * 100 - 312
    assert file.synced() is not None
    assert file.synced() is None
    file.finish()


def test_a_clock_that_jumps_begins_a_stretch_by_arrival(tmp_path: Path) -> None:
    writer = TrackWriter(tmp_path / "a", (0, 0))
    stream = stream_of()
    start = 10**18
    writer.write(stream, opus(5000, at_ns=start))
    writer.write(stream, opus(5960, at_ns=start + 20_000_000))
    writer.write(stream, opus(900_000_000, at_ns=start + NS))
    writer.write(stream, opus(900_000_960, at_ns=start + NS + 20_000_000))
    assert [stretch.position for stretch in writer.stretches] == [0, 48_000]
    assert writer.duration_ns == NS + 40_000_000
    writer.finish()


def test_another_stream_goes_on_behind_a_gap(tmp_path: Path) -> None:
    writer = TrackWriter(tmp_path / "a", (0, 0))
    start = 10**18
    writer.write(stream_of(), opus(0, at_ns=start))
    writer.write(stream_of(), opus(77, at_ns=start + NS // 2))
    assert writer.gaps == [(960, 24_000)]
    with pytest.raises(CodecChanged):
        writer.write(stream_of("vp8"), opus(0, at_ns=start + NS))
    writer.finish()


def test_a_cut_takes_time_out_of_the_file(tmp_path: Path) -> None:
    writer = TrackWriter(tmp_path / "a", (0, 0))
    stream = stream_of()
    start = 10**18
    writer.write(stream, opus(0, at_ns=start))
    writer.cut(5 * NS)
    writer.write(stream, opus(48_000 * 5 + 960, at_ns=start + 5 * NS + 20_000_000))
    assert writer.stretches[-1].position == 960
    writer.finish(start + 6 * NS)
    assert writer.duration_ns == NS


def test_the_common_clock_is_the_middle_of_what_reports_say(tmp_path: Path) -> None:
    writer = TrackWriter(tmp_path / "a", (0, 0))
    stream = stream_of()
    start = 10**18
    writer.write(stream, opus(1000, at_ns=start))
    for jump in (0, 10_000_000, -9_000_000):
        stream.readings.append(ClockReading(start + 3 * NS + jump, 1000 + 48_000 * 3))
    writer.read_clock()
    assert writer.stretches[0].common_ns(48_000) == start
    writer.finish()


def test_a_timeline_is_read_up_to_its_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "timeline-000.json"
    writer = TimelineWriter(path)
    writer.add("arrived", 10, identity="ann", name="Änn", kind="standard", joined_at_ms=1)
    for index, sid in enumerate(("TR_a", "TR_b")):
        facts = {"identity": "ann", "name": "n", "kind": "video", "source": "camera", "codec": "vp8"}
        writer.add("published", 11, sid=sid, width=1, height=2, muted=False, **facts)
        writer.add("file", 100 + index, file=f"{sid}.webm", sid=sid, codec="vp8")
        writer.add("stretch", 100 + index, file=f"{sid}.webm", position=0)
    writer.add("speaking", 120, levels={"ann": 0.5})
    writer.add("clock", 1_005_000, file="TR_a.webm", position=5_000)
    writer.add("clock", 1_007_007, file="TR_b.webm", position=7_000)
    writer.add("paused", 130)
    writer.add("interrupted", 140)
    writer.close()
    with path.open("a") as file:
        file.write('{"at": 150, "event": "unpub')
    story = read_timelines(tmp_path)
    assert story.people[0].name == "Änn"
    # By their own clocks they began 7 apart, not 1: the middle of both shifts is nobody's.
    first, second = story.files
    assert second.start_ns - first.start_ns == 7
    assert abs(first.start_ns - 100) <= 7
    assert story.speaking == [(120, {"ann": 0.5})]
    assert (story.pauses, story.gaps, story.end_ns) == ([(130, 140)], [(140, 140)], 140)
    assert all(json.loads(line)["event"] for line in path.read_text().splitlines()[:-1])


def test_no_timeline_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_timelines(tmp_path)


def test_frames_that_come_late_keep_their_place(tmp_path: Path) -> None:
    """They were sent again after seconds without packets."""
    writer = TrackWriter(tmp_path / "a", (0, 0))
    stream = stream_of()
    start = 10**18
    for index in range(100):
        writer.write(stream, opus(960 * index, at_ns=start + (5 * NS if index else 0)))
    assert [stretch.position for stretch in writer.stretches] == [0]
    writer.write(stream, opus(0, at_ns=start + 6 * NS))
    assert len(writer.stretches) == 2
    writer.finish()
