"""Compiled commands, without running them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from adapters.ffmpeg import graph
from server.domain.ladder import FFMPEG_PRESETS, ConversionSettings, EncodePlan, plan_encode
from server.domain.media import AudioStream, VideoStream
from tests.unit.domain.test_ladder import HD, STEREO, media


def plan(
    *streams: VideoStream | AudioStream, preset: str = "fast", formats: tuple[str, ...] = ()
) -> EncodePlan:
    settings = ConversionSettings(formats or ("360p", "480p", "720p"), preset)
    return plan_encode(media(*(streams or (HD, STEREO))), settings)


def command(made: EncodePlan) -> list[str]:
    return graph.encode_command(
        "/bin/ffmpeg", made, Path("/jobs/1/source"), range(7, 7 + len(made.renditions))
    )


def values(argv: list[str], option: str) -> Iterator[str]:
    return (argv[at + 1] for at, word in enumerate(argv) if word == option)


def value(argv: list[str], option: str) -> str:
    (found,) = values(argv, option)
    return found


def test_one_input_that_cannot_reach_out() -> None:
    """2.2: a plain file, one protocol, the sniffed format, no list formats; before `-i`."""
    argv = command(plan())
    before = argv[: argv.index("-i")]
    assert value(argv, "-i") == "file:/jobs/1/source"
    assert value(before, "-protocol_whitelist") == "file"
    assert "hls" not in value(before, "-format_whitelist").split(",")
    assert value(before, "-f") == "mov"
    assert "-nostdin" in before
    assert value(before, "-max_pixels") == "40000000"


@pytest.mark.parametrize("preset", FFMPEG_PRESETS)
def test_preset_is_passed_on(preset: str) -> None:
    """VC-08, VC-09, VC-10."""
    assert value(command(plan(preset=preset)), "-preset") == preset


def test_rates_are_the_contracts() -> None:
    """VC-56, VC-57, VC-58, VC-59: largest encode first; audio once per distinct rate."""
    argv = command(plan(formats=("360p", "480p", "720p", "1080p")))
    assert [value(argv, f"-b:v:{i}") for i in range(4)] == ["5000000", "2800000", "1400000", "800000"]
    assert [value(argv, f"-b:a:{i}") for i in range(3)] == ["96000", "128000", "192000"]
    assert not list(values(argv, "-b:a:3"))


def test_one_decode_and_cascaded_scaling() -> None:
    """Design 6: each size is scaled from the next larger one."""
    filters = value(command(plan()), "-filter_complex")
    assert filters.count("[0:0]") == 1
    assert filters.count("[0:1]") == 1
    assert filters.count("scale=1280:720") == 1
    assert filters.count("split=2") == 3  # two of the picture, one `asplit` of the sound
    order = [filters.index(f"scale={size}") for size in ("1280:720", "854:480", "640:360")]
    assert order == sorted(order)


def test_segments_and_lists() -> None:
    """VC-64: names of three digits from 000 in the preset's folder; completion is told on the inherited pipe."""
    slaves = command(plan())[-1].split("|")
    assert [slave.rsplit("]", 1)[1] for slave in slaves] == [
        "360p/segment_%03d.ts",
        "480p/segment_%03d.ts",
        "720p/segment_%03d.ts",
    ]
    assert [f"segment_list='pipe\\:{fd}'" in slave for fd, slave in zip((7, 8, 9), slaves, strict=True)] == [
        True
    ] * 3
    assert "select='v\\:2,a\\:0'" in slaves[0]
    assert "select='v\\:0,a\\:1'" in slaves[2]


def test_key_frames_only_on_the_grid() -> None:
    """Issue 5: aligned IDRs; no scene cuts; the muxer cuts just below the exact length."""
    rate = Fraction(30000, 1001)
    argv = command(plan(replace(HD, fps_average=rate, fps_base=rate), STEREO))
    assert (value(argv, "-g"), value(argv, "-keyint_min"), value(argv, "-sc_threshold")) == ("60", "60", "0")
    assert "fps=30000/1001" in value(argv, "-filter_complex").replace("fps=fps=", "fps=")
    assert "segment_time=2.001980" in argv[-1]


@pytest.mark.parametrize(
    ("stream", "present"),
    [
        (replace(HD, field_order="interlaced"), "bwdif"),
        (replace(HD, color_transfer="smpte2084"), "tonemap"),
        (replace(HD, color_primaries="bt2020"), "zscale"),
        (replace(HD, duration_sec=30.0), "tpad"),
        (replace(HD, color_space="smpte170m"), "in_color_matrix=smpte170m"),
        (replace(HD, color_range="pc"), "in_range=pc"),
    ],
)
def test_fixes_only_where_needed(stream: VideoStream, present: str) -> None:
    assert present in value(command(plan(stream, STEREO)), "-filter_complex")
    assert present not in value(command(plan()), "-filter_complex")


def test_sound_is_padded_to_the_end_of_the_picture() -> None:
    assert "apad=whole_dur=60" in value(command(plan()), "-filter_complex")
    assert "apad" not in value(command(plan(replace(HD, duration_sec=30.0), STEREO)), "-filter_complex")


def test_sound_only_has_no_video_options() -> None:
    argv = command(plan(STEREO))
    assert "-c:v" not in argv
    assert "select='a\\:0'" in argv[-1]


def test_picture_only_has_no_audio_options() -> None:
    argv = command(plan(HD))
    assert "-c:a" not in argv
    assert "select='v\\:2'" in argv[-1]
