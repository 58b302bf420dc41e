"""A program: encoded once, in every container, in segments and images, and safe from a kill at any moment."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from adapters.recorder.encoders import KeyFrames
from adapters.recorder.muxer import Muxer
from adapters.recorder.program import Program
from server.domain.egress import AudioEncoding, Encoding
from server.ports.recorder import ImageWritten, SegmentWritten, WantedImages
from tests.integration.recorder.material import (
    FPS,
    HEIGHT,
    SMALL,
    VIDEO,
    WIDTH,
    Feeder,
    Look,
    Reports,
    continuity_errors,
    packets,
    picture,
    plan_into,
    sound,
)

STARTED_AT = 1_795_000_000_000_000_000


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.mark.parametrize(
    ("codec", "profile"),
    [("h264_baseline", "Constrained Baseline"), ("h264_main", "Main"), ("h264_high", "High")],
)
@pytest.mark.parametrize("fps", [25, 60])
def test_pictures_are_evenly_spaced_in_the_asked_codec(
    tmp_path: Path, reports: Reports, codec: str, profile: str, fps: int
) -> None:
    """Design 7: every picture once, at its time, whatever the rate; codec, profile, colours and sound as asked."""
    encoding = Encoding(replace(VIDEO, codec=codec, fps=fps), AudioEncoding(hz=48_000))
    program = Program(plan_into(tmp_path, encoding, container="mp4"), reports)
    Feeder(program, fps=fps).feed(2 * fps + 7)
    measured = program.finish()
    look = Look.at(tmp_path / "part-000.mp4")
    assert look.numbers == list(range(2 * fps + 7))
    assert look.times == [pytest.approx(number / fps, abs=1e-4) for number in range(2 * fps + 7)]
    assert all(abs(offset) < 0.02 for offset in look.offsets())
    assert look.video == {
        "codec": "h264",
        "profile": profile,
        "rate": fps,
        "colour": (1, 1, 1, 1),
        "size": (WIDTH, HEIGHT),
    }
    assert look.audio == {"codec": "aac", "hz": 48_000, "channels": 2}
    assert measured.duration_ms == (2 * fps + 7) * 1000 // fps
    assert measured.bytes == (tmp_path / "part-000.mp4").stat().st_size


@pytest.mark.parametrize(
    ("container", "encoding", "codecs"),
    [
        ("webm", Encoding(replace(VIDEO, codec="vp9"), AudioEncoding("opus", 96, 48_000)), ("vp9", "opus")),
        ("mp4", Encoding(VIDEO, AudioEncoding("opus", 96, 48_000)), ("h264", "opus")),
        ("ogg", Encoding(None, AudioEncoding("opus", 96, 44_100)), (None, "opus")),
        ("mp3", Encoding(None, AudioEncoding("mp3", 128, 44_100)), (None, "mp3")),
        ("mp4", Encoding(None, AudioEncoding()), (None, "aac")),
        ("mp4", Encoding(VIDEO, None), ("h264", None)),
    ],
)
def test_each_container_holds_what_was_fed(
    tmp_path: Path,
    reports: Reports,
    container: str,
    encoding: Encoding,
    codecs: tuple[str | None, str | None],
) -> None:
    """EG-07: MP4, WebM, OGG and MP3; picture only and sound only."""
    program = Program(plan_into(tmp_path, encoding, container=container, part=7), reports)
    Feeder(program, video=encoding.video is not None, audio=encoding.audio is not None).feed(75)
    program.finish()
    look = Look.at(tmp_path / f"part-007.{container}")
    if codecs[0] is not None:
        assert look.video["codec"] in (codecs[0], f"libvpx-{codecs[0]}")
        assert look.numbers == list(range(75))
        assert look.steps() <= {33, 34}
    if codecs[1] is not None:
        assert str(look.audio["codec"]).startswith(codecs[1])
        assert look.audio_sec == pytest.approx(2.5, abs=0.06)
        assert look.beeps == [pytest.approx(at, abs=0.03) for at in (0, 1, 2)]
    if all(codecs):
        assert all(abs(offset) < 0.02 for offset in look.offsets())


def test_key_frames_come_when_outputs_need_them() -> None:
    """LK-124, livekit-surface 4.1: as asked, else 4 s for streams and at the boundaries of segments; for a file the encoder decides."""
    asked = replace(VIDEO, key_frame_sec=2.5)
    assert KeyFrames.planned(VIDEO, segment_sec=0, streams=False).every == ()
    assert KeyFrames.planned(VIDEO, segment_sec=0, streams=True).every == (120,)
    assert KeyFrames.planned(VIDEO, segment_sec=6, streams=False).every == (180,)
    assert KeyFrames.planned(VIDEO, segment_sec=6, streams=True).every == (120, 180)
    assert KeyFrames.planned(asked, segment_sec=0, streams=True).every == (75,)


def test_segments_are_exact_and_follow_each_other(tmp_path: Path, reports: Reports) -> None:
    """LK-75: cut at key frames of the asked length, told of in order; together they are one unbroken stream."""
    program = Program(plan_into(tmp_path, segment_sec=2, part=3, container="mp4"), reports)
    program.started_at = STARTED_AT
    Feeder(program).feed(5 * FPS + 10)
    program.finish()
    written = reports.all(SegmentWritten)
    assert [(one.file, one.number, one.duration_sec) for one in written] == [
        ("seg-003-00000.ts", 0, 2.0),
        ("seg-003-00001.ts", 1, 2.0),
        ("seg-003-00002.ts", 2, pytest.approx(1 + 10 / FPS)),
    ]
    assert [one.started_at - STARTED_AT for one in written] == [0, 2_000_000_000, 4_000_000_000]
    data = b""
    for one in written:
        path = tmp_path / one.file
        data += path.read_bytes()
        assert packets(path, "video")[0][2], "a segment begins with a key frame"
        assert len([1 for _, _, key in packets(path, "video") if key]) == 1
        assert Look.at(path).numbers[0] == one.number * 60
    whole = tmp_path / "whole.ts"
    whole.write_bytes(data)
    look = Look.at(whole)
    assert look.numbers == list(range(5 * FPS + 10))
    assert look.steps() <= {33, 34}
    sounds = [pts for pts, _, _ in packets(whole, "audio")]
    assert {round((b - a) * 44_100) for a, b in itertools.pairwise(sounds)} <= {1023, 1024, 1025}
    assert continuity_errors(data) == 0


def test_segments_of_sound_alone(tmp_path: Path, reports: Reports) -> None:
    program = Program(plan_into(tmp_path, replace(SMALL, video=None), segment_sec=1), reports)
    Feeder(program, video=False).feed(100)
    program.finish()
    written = reports.all(SegmentWritten)
    assert len(written) == 4
    assert sum(one.duration_sec for one in written) == pytest.approx(100 / FPS, abs=0.03)
    assert all(one.duration_sec == pytest.approx(1, abs=0.03) for one in written[:-1])


def test_images_show_the_picture_of_their_moment(tmp_path: Path, reports: Reports) -> None:
    """LK-84, LK-85: JPEGs at their interval, at the asked size and with true colours; numbers go on from earlier parts."""
    wanted = (WantedImages(1), WantedImages(2, 160, 90))
    program = Program(plan_into(tmp_path, images=wanted, first_image=5), reports)
    grey = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    grey[:HEIGHT] = 81  # red in BT.709, limited range
    red = av.VideoFrame.from_ndarray(grey, format="yuv420p")
    red.planes[1].update(bytes([100]) * len(bytes(red.planes[1])))
    red.planes[2].update(bytes([212]) * len(bytes(red.planes[2])))
    for number in range(75):
        program.video(red, number)
        program.audio(sound(number * 1600, 1600))
    program.finish()
    written = sorted((one.output, one.number, one.file) for one in reports.all(ImageWritten))
    assert written == [
        (0, 5, "image-0-000-00005.jpeg"),
        (0, 6, "image-0-000-00006.jpeg"),
        (0, 7, "image-0-000-00007.jpeg"),
        (1, 5, "image-1-000-00005.jpeg"),
        (1, 6, "image-1-000-00006.jpeg"),
    ]
    with Image.open(tmp_path / "image-1-000-00006.jpeg") as small:
        assert small.size == (160, 90)
    with Image.open(tmp_path / "image-0-000-00005.jpeg") as first:
        assert first.size == (WIDTH, HEIGHT)
        colour = first.convert("RGB").getpixel((100, 100))
    # Y 81, Cb 100, Cr 212: R = 1.164·65 + 1.793·84, G = … - 0.213·-28 - 0.533·84, B = … + 2.112·-28
    assert isinstance(colour, tuple)
    assert list(colour) == [pytest.approx(value, abs=6) for value in (226, 37, 17)]


def test_a_picture_left_out_is_an_error(tmp_path: Path, reports: Reports) -> None:
    program = Program(plan_into(tmp_path, container="mp4"), reports)
    program.video(picture(0), 0)
    with pytest.raises(ValueError, match="picture 2 follows 0"):
        program.video(picture(2), 2)
    program.finish()


def test_starting_and_ending_at_once_leaves_nothing_broken(tmp_path: Path, reports: Reports) -> None:
    """Start and stop within 100 ms: no picture, or one."""
    Program(plan_into(tmp_path, container="mp4", segment_sec=4), reports).finish()
    assert not reports.all(SegmentWritten)
    program = Program(plan_into(tmp_path, container="mp4", segment_sec=4, part=1), reports)
    Feeder(program).feed(1)
    assert program.finish().duration_ms == 33
    assert Look.at(tmp_path / "part-001.mp4").numbers == [0]
    assert [one.duration_sec for one in reports.all(SegmentWritten)] == [pytest.approx(1 / FPS)]


_FEEDER = """
import resource, signal, sys, time
from pathlib import Path
from adapters.recorder.program import Program
from tests.integration.recorder.material import Feeder, Reports, plan_into
limit = int(sys.argv[3])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
program = Program(plan_into(Path(sys.argv[1]), container=sys.argv[2]), Reports())
feeder = Feeder(program)
try:
    feeder.feed(100_000, live=not limit, between=lambda number: print(number, flush=True))
except OSError as error:
    print("refused", error.errno, flush=True)
    try:
        program.finish()
    except OSError:
        print("ended", flush=True)
"""


@pytest.mark.parametrize("after", [40, 75, 130])
async def test_a_kill_loses_less_than_four_seconds(tmp_path: Path, after: int) -> None:
    """Design 7: `kill -9` at any moment; what was fed up to 2 s before it is in the finished file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FEEDER, str(tmp_path), "mp4", "0", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    fed = 0
    while fed < after:
        fed = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    try:
        await Muxer().finish([tmp_path / "part-000.mp4"], tmp_path / "out.mp4", "mp4")
    except ValueError:
        kept = 0
    else:
        look = Look.at(tmp_path / "out.mp4")
        kept = len(look.numbers)
        assert look.numbers == list(range(kept))
        assert all(abs(offset) < 0.02 for offset in look.offsets() if abs(offset) < 0.1)
    assert fed - kept <= 2 * FPS


async def test_a_full_disk_is_told_and_what_fits_is_kept(tmp_path: Path) -> None:
    """Design 7: the write error reaches the caller; what was written before plays."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FEEDER, str(tmp_path), "mp4", "300000", stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"refused 27" in said  # EFBIG
    assert said.strip().endswith(b"ended")
    assert process.returncode == 0
    await Muxer().finish([tmp_path / "part-000.mp4"], tmp_path / "out.mp4", "mp4")
    look = Look.at(tmp_path / "out.mp4")
    assert len(look.numbers) > 2 * FPS
    assert look.numbers == list(range(len(look.numbers)))


def test_sound_keeps_its_place_for_minutes(tmp_path: Path, reports: Reports) -> None:
    """No drift: after three minutes of resampling to 44.1 kHz the last packet ends where the sound ends."""
    program = Program(plan_into(tmp_path, replace(SMALL, video=None), container="mp4"), reports)
    silence = np.zeros((48_000 // 30, 2), np.int16)
    for _ in range(180 * 30):
        program.audio(silence)
    program.finish()
    last = packets(tmp_path / "part-000.mp4", "audio")[-1][0]
    assert abs(last + Fraction(1024, 44_100) - 180) < Fraction(1024, 44_100)
