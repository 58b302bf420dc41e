"""Every kind of source through probe, plan, encode and audit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.ffmpeg.binary import resolve_ffmpeg
from adapters.ffmpeg.encoder import FfmpegEncoder
from server.domain.hls import START_PTS
from tests.integration.encode_stage import Ladder, make_ladder
from tests.media import CONTAINERS, Clip, ClipFactory

# Mean distance of 8-bit RGB values: what two lossy encodes of the same picture differ by at most.
SAME_PICTURE = 12.0
_SILENT = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("extension", sorted(CONTAINERS))
async def test_container(extension: str, clips: ClipFactory, tmp_path: Path) -> None:
    """VC-04: each of the twelve containers becomes a sound ladder of its whole length."""
    ladder = await make_ladder(clips.container(extension), tmp_path)
    assert ladder.audit() == []
    assert ladder.report.duration_sec == pytest.approx(3.0, abs=0.05)
    assert ladder.lengths()[0] == 2.0
    assert ladder.report.renditions[0].codecs[1:] == ("mp4a.40.2",)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("540x960", [(480, 854), (360, 640)]),
        ("321x181", [(320, 180)]),
        ("640x480", [(640, 480), (480, 360)]),
        ("1000x1000", [(480, 480), (360, 360)]),
        ("1280x540", [(854, 360), (640, 270)]),
        ("16x16", [(16, 16)]),
    ],
)
async def test_size(size: str, expected: list[tuple[int, int]], clips: ClipFactory, tmp_path: Path) -> None:
    """VC-54, VC-55, VC-60: portrait boxes turn, nothing grows, sizes are even."""
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p", "-c:a", "aac")
    ladder = await make_ladder(clips.clip(Clip(size=size, seconds=1, codecs=codecs)), tmp_path)
    assert ladder.audit() == []
    sizes = {(track.width, track.height): None for track in ladder.plan.video_tracks}
    assert list(sizes) == expected


async def test_equal_renditions_are_encoded_once(clips: ClipFactory, tmp_path: Path) -> None:
    """B-56: a small source yields every folder that was asked for, from one encode where they are equal."""
    ladder = await make_ladder(clips.clip(Clip(size="64x64")), tmp_path, formats=("360p", "720p", "1080p"))
    assert ladder.audit() == []
    assert len(ladder.plan.video_tracks) == 1
    assert len(ladder.report.renditions) == 3


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
async def test_rotation(degrees: int, turns: int, clips: ClipFactory, tmp_path: Path) -> None:
    """A display matrix is applied, and the box follows the turned picture."""
    (tmp_path / "plain").mkdir()
    plain = await make_ladder(clips.clip(), tmp_path / "plain", formats=("360p",))
    turned = await make_ladder(clips.rotated(degrees), tmp_path, formats=("360p",))
    assert turned.audit() == []
    expected = np.rot90(plain.picture("360p"), turns)
    assert difference(turned.picture("360p"), expected) < SAME_PICTURE


async def test_sample_aspect(clips: ClipFactory, tmp_path: Path) -> None:
    """Pixels become square: PAL 720x576 at 64:45 is a 16:9 picture."""
    ladder = await make_ladder(clips.clip(Clip(size="720x576", filters="setsar=64/45", seconds=1)), tmp_path)
    assert ladder.audit() == []
    assert [(t.width, t.height) for t in ladder.plan.video_tracks] == [(854, 480), (640, 360)]


@pytest.mark.parametrize(
    ("fps", "hls_time", "seconds", "lengths"),
    [
        ("30000/1001", 2, 5, [2.002, 2.002, 1.001]),
        ("24000/1001", 1, 3, [1.001, 1.001, 1.001]),
        ("60000/1001", 2.5, 6, [2.502, 2.502, 1.001]),
        ("30000/1001", 6, 13, [6.006, 6.006, 1.001]),
        ("25", 1.5, 4, [1.52, 1.52, 0.96]),
        ("120", 2, 3, [2.0, 1.0]),
        ("1", 2, 6, [2.0, 2.0, 2.0]),
    ],
)
async def test_frame_rate(
    fps: str, hls_time: float, seconds: float, lengths: list[float], clips: ClipFactory, tmp_path: Path
) -> None:
    """VC-12 and design 13: exact, aligned segments at every frame rate, none above 60."""
    ladder = await make_ladder(clips.clip(Clip(fps=fps, seconds=seconds)), tmp_path, hls_time=hls_time)
    assert ladder.audit() == []
    assert ladder.lengths() == lengths
    assert ladder.plan.fps is not None
    assert ladder.plan.fps <= 60


async def test_variable_rate(clips: ClipFactory, tmp_path: Path) -> None:
    """A screen capture that falls from 30 to 6 frames a second becomes constant 30."""
    ladder = await make_ladder(clips.variable_rate(), tmp_path)
    assert ladder.audit() == []
    assert ladder.plan.fps == 30
    assert ladder.lengths()[0] == 2.0


async def test_browser_recording(clips: ClipFactory, tmp_path: Path) -> None:
    """A WebM without length and frame rate: the rate is taken from the packets, progress shows no percentage."""
    ladder = await make_ladder(clips.browser_recording(), tmp_path)
    assert ladder.info.duration_sec is None
    assert ladder.audit() == []
    assert ladder.plan.fps == 24
    assert {step.percent for step in ladder.progress} == {None}
    assert ladder.report.duration_sec == pytest.approx(3.1, abs=0.15)


async def test_sound_track_without_sound(clips: ClipFactory, tmp_path: Path) -> None:
    """B-57: an empty sound track does not keep the pictures from being converted."""
    ladder = await make_ladder(clips.silent_track(), tmp_path)
    assert ladder.audit() == []
    assert ladder.report.duration_sec == pytest.approx(3.0, abs=0.05)


async def test_interlaced(clips: ClipFactory, tmp_path: Path) -> None:
    """Two fields become one progressive frame; the detector that sees combing in the source sees none after."""
    source = clips.interlaced()
    # At the source's own height: scaling the lines would hide the combing.
    ladder = await make_ladder(source, tmp_path, formats=("720p",))
    assert ladder.audit() == []
    assert ladder.plan.video_tracks[0].height == 576
    whole = tmp_path / "whole.ts"
    whole.write_bytes(ladder.stream("720p").read())
    assert _interlaced_frames(source) > 10
    assert _interlaced_frames(whole) == 0


def _interlaced_frames(source: Path) -> int:
    command = [resolve_ffmpeg(), "-i", str(source), "-vf", "idet", "-an", "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, timeout=30, check=True).stderr.decode()
    # FFmpeg may set up the graph twice; the last one saw the frames.
    found = re.findall(r"Multi frame detection: TFF:\s*(\d+) BFF:\s*(\d+)", log)
    return sum(int(count) for count in found[-1])


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
async def test_hdr(transfer: str, clips: ClipFactory, tmp_path: Path) -> None:
    """HDR10 and HLG are tone-mapped: the SDR pattern comes back with its colours, a little darker in the lights."""
    (tmp_path / "plain").mkdir()
    plain = await make_ladder(clips.clip(Clip(seconds=2)), tmp_path / "plain", formats=("360p",))
    ladder = await make_ladder(clips.hdr(transfer), tmp_path, formats=("360p",))
    assert ladder.audit() == []
    sdr, mapped = plain.picture("360p"), ladder.picture("360p")
    # Columns of the pattern: red, green, yellow, blue, magenta, cyan.
    for column in range(6):
        x = 320 * column // 6 + 20
        # The median over a strip looks past what moves in front of it.
        before, after = (np.median(picture[40:170, x], axis=0) for picture in (sdr, mapped))
        bright = before > 200
        assert (after[bright] > 130).all(), (column, before, after)
        assert (after[~bright] < 70).all(), (column, before, after)


@pytest.mark.parametrize("kind", ["ten_bit", "chroma_422"])
async def test_deep_colour(kind: str, clips: ClipFactory, tmp_path: Path) -> None:
    """10 bits and 4:2:2 become 8-bit 4:2:0, which the audit checks, of the same picture."""
    (tmp_path / "plain").mkdir()
    plain = await make_ladder(clips.clip(Clip(seconds=2)), tmp_path / "plain", formats=("360p",))
    ladder = await make_ladder(getattr(clips, kind)(), tmp_path, formats=("360p",))
    assert ladder.info.video[0].bit_depth == 10
    assert ladder.audit() == []
    assert difference(plain.picture("360p"), ladder.picture("360p")) < SAME_PICTURE


@pytest.mark.parametrize("tag", ["smpte170m", "bt709"])
async def test_matrix(tag: str, clips: ClipFactory, tmp_path: Path) -> None:
    """Colours stay what they were, whichever matrix the source was coded with."""
    filters = f"scale=out_color_matrix={tag},setparams=colorspace={tag}:color_primaries={tag}:color_trc={tag}"
    ladder = await make_ladder(clips.clip(Clip(seconds=2, filters=filters)), tmp_path, formats=("360p",))
    assert ladder.audit() == []
    picture = ladder.picture("360p").astype(int)
    for x, expected in ((90, (0, 255, 0)), (250, (255, 0, 255))):
        assert np.abs(picture[100, x] - expected).max() < 30, picture[100, x]


async def test_no_sound(clips: ClipFactory, tmp_path: Path) -> None:
    """B-57: video-only variants, CODECS without sound."""
    ladder = await make_ladder(clips.clip(Clip(sound="", codecs=_SILENT)), tmp_path)
    assert ladder.audit() == []
    assert all(len(rendition.codecs) == 1 for rendition in ladder.report.renditions)


@pytest.mark.parametrize("extension", ["m4a", "mp3", "flac", "wav"])
async def test_sound_only(extension: str, clips: ClipFactory, tmp_path: Path) -> None:
    """Design 13: every requested folder holds sound at its preset's rate; there is no picture to show."""
    ladder = await make_ladder(clips.sound_only(extension), tmp_path, formats=("360p", "1080p"))
    assert ladder.audit() == []
    assert ladder.plan.audio_tracks == (96_000, 192_000)
    assert ladder.report.duration_sec == pytest.approx(5.0, abs=0.05)
    assert not await FfmpegEncoder().thumbnail(ladder.plan, clips.sound_only(), tmp_path, tmp_path / "t.jpg")


async def test_cover_art(clips: ClipFactory, tmp_path: Path) -> None:
    """Cover art becomes the thumbnail, not a rendition of one frame."""
    ladder = await make_ladder(clips.with_cover(), tmp_path)
    assert ladder.audit() == []
    assert ladder.plan.video_tracks == ()
    target = tmp_path / "thumbnail.jpg"
    assert await FfmpegEncoder().thumbnail(ladder.plan, clips.with_cover(), tmp_path, target)
    assert target.read_bytes()[:3] == b"\xff\xd8\xff"


async def test_surround(clips: ClipFactory, tmp_path: Path) -> None:
    """5.1 is mixed down to stereo at 48 kHz."""
    ladder = await make_ladder(clips.surround(), tmp_path)
    assert ladder.info.audio[0].channels == 6
    assert ladder.audit() == []
    samples, _ = ladder.sound("360p")
    assert np.abs(samples[24_000:72_000]).max() > 0.1


@pytest.mark.parametrize("offset", [0.5, -0.5])
async def test_offset_of_sound(offset: float, clips: ClipFactory, tmp_path: Path) -> None:
    """2.8 case 11: picture and sound keep their distance within a frame; the gap is silence or a frozen picture."""
    ladder = await make_ladder(clips.late_sound(offset), tmp_path, formats=("360p",))
    assert ladder.audit() == []
    samples, start = ladder.sound("360p")
    onset = start + int(np.argmax(np.abs(samples) > 0.02)) / 48_000
    assert onset == pytest.approx(max(0.0, offset), abs=0.04)
    assert ladder.report.duration_sec == pytest.approx(3.5, abs=0.05)


@pytest.mark.parametrize("kind", ["negative_start", "late_start"])
async def test_start_time(kind: str, clips: ClipFactory, tmp_path: Path) -> None:
    """Whatever the source's clock starts with, media time 0 is the same stamp in every rendition."""
    ladder = await make_ladder(getattr(clips, kind)(), tmp_path)
    assert abs(ladder.info.start_sec) > 0.4
    assert ladder.audit() == []
    assert ladder.report.start_pts == START_PTS
    assert ladder.report.duration_sec == pytest.approx(3.0, abs=0.05)


async def test_sound_outlasting_the_picture(clips: ClipFactory, tmp_path: Path) -> None:
    """The last picture stays while the sound goes on, so that every segment has a key frame."""
    sources = ("-i", clips.clip(), "-i", clips.sound_only(seconds=7))
    longer = clips.derived("longer", "mp4", *sources, "-map", "0:v", "-map", "1:a", "-c", "copy")
    ladder = await make_ladder(longer, tmp_path)
    assert ladder.audit() == []
    assert ladder.lengths() == [2.0, 2.0, 2.0, 1.0]


async def test_picture_outlasting_the_sound(clips: ClipFactory, tmp_path: Path) -> None:
    """Silence fills up, so that players with one buffer per kind do not stall."""
    sources = ("-i", clips.clip(Clip(seconds=6)), "-i", clips.sound_only(seconds=2))
    longer = clips.derived("longer", "mp4", *sources, "-map", "0:v", "-map", "1:a", "-c", "copy")
    ladder = await make_ladder(longer, tmp_path)
    assert ladder.audit() == []
    samples, _ = ladder.sound("360p")
    assert len(samples) / 48_000 == pytest.approx(6.0, abs=0.05)


@pytest.mark.parametrize("frames", [1, 3])
async def test_shorter_than_a_segment(frames: int, clips: ClipFactory, tmp_path: Path) -> None:
    """2.8 case 7: one segment, and a target duration of at least 1."""
    ladder = await make_ladder(clips.clip(Clip(seconds=frames / 25)), tmp_path)
    assert ladder.audit() == []
    assert ladder.lengths() == [frames / 25]


async def test_many_streams(clips: ClipFactory, tmp_path: Path) -> None:
    """One picture (the default one) and one sound are taken."""
    ladder = await make_ladder(clips.many_streams(), tmp_path, formats=("720p",))
    assert ladder.audit() == []
    assert len(ladder.info.video) == 2
    assert (ladder.plan.video_tracks[0].width, ladder.plan.video_tracks[0].height) == (320, 180)


async def test_subtitles(clips: ClipFactory, tmp_path: Path) -> None:
    """Text tracks become WebVTT on the video's clock, in a group that every variant names."""
    ladder = await make_ladder(clips.subtitled(), tmp_path)
    assert ladder.audit() == []
    assert [track.variant.language for track in ladder.subtitles] == ["de", "en"]
    text = ladder.subtitles[0].files[0][1].decode()
    assert text.startswith(f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{START_PTS},LOCAL:00:00:00.000\n")
    assert "00:00:00.500 --> 00:00:01.500\nGuten Tag" in text
    master = (tmp_path / "master.m3u8").read_text()
    assert master.count('SUBTITLES="subs"') == 2
    assert 'LANGUAGE="de"' in master


async def test_thumbnail_skips_black(clips: ClipFactory, tmp_path: Path) -> None:
    """VC-62: a picture from near the start, but not a black one, at the top rendition's size."""
    source = clips.clip(Clip(seconds=6, filters="drawbox=color=black:t=fill:enable='lt(t,3.5)'"))
    ladder = await make_ladder(source, tmp_path)
    target = tmp_path / "thumbnail.jpg"
    assert await FfmpegEncoder().thumbnail(ladder.plan, source, tmp_path, target)
    assert _mean_of(target) > 50


async def test_thumbnail_of_nothing_but_black(clips: ClipFactory, tmp_path: Path) -> None:
    """VC-62: a black film gets a black thumbnail rather than none."""
    source = clips.clip(Clip(seconds=3, filters="drawbox=color=black:t=fill"))
    ladder = await make_ladder(source, tmp_path)
    target = tmp_path / "thumbnail.jpg"
    assert await FfmpegEncoder().thumbnail(ladder.plan, source, tmp_path, target)
    assert _mean_of(target) < 10


def _mean_of(picture: Path) -> float:
    import av

    with av.open(str(picture), "r") as container:
        return float(next(container.decode(video=0)).to_ndarray(format="rgb24").mean())


async def test_segments_are_handed_on_in_order_and_progress_ends_at_the_end(
    clips: ClipFactory, tmp_path: Path
) -> None:
    """Issue 5: every segment once, in order within its rendition, complete when handed on; progress grows to 100."""
    ladder = await make_ladder(clips.clip(Clip(seconds=7)), tmp_path, hls_time=1)
    _in_order(ladder, lambda name: [s.index for s in ladder.handed_on if s.rendition == name])
    done = [step.done_sec for step in ladder.progress]
    assert done == sorted(done)
    assert ladder.progress[-1].percent == pytest.approx(100.0, abs=2.0)
    assert ladder.report.frames == 175


def _in_order(ladder: Ladder, indexes: Callable[[str], list[int]]) -> None:
    for rendition in ladder.report.renditions:
        assert indexes(rendition.name) == list(range(len(rendition.segments)))
