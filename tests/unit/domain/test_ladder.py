"""The planner, without FFmpeg."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.ladder import (
    DEFAULT_FORMATS,
    FFMPEG_PRESETS,
    PRESETS,
    ConversionSettings,
    EncodePlan,
    output_fps,
    plan_encode,
    rendition_size,
    segment_grid,
)
from server.domain.media import (
    UNSUPPORTED_FORMAT,
    AudioStream,
    MediaError,
    MediaInfo,
    SubtitleStream,
    VideoStream,
)

HD = VideoStream(
    0, "h264", 1920, 1080, 1920, 1080,
    fps_average=Fraction(30), fps_base=Fraction(30), bit_rate=8_000_000, duration_sec=60.0, start_sec=0.0,
)  # fmt: skip
STEREO = AudioStream(1, "aac", 2, 48_000, bit_rate=128_000, duration_sec=60.0, start_sec=0.0)


def media(*streams: VideoStream | AudioStream | SubtitleStream, duration: float | None = 60.0) -> MediaInfo:
    return MediaInfo(
        container="mov",
        duration_sec=duration,
        start_sec=0.0,
        bit_rate=None,
        size=1,
        video=tuple(s for s in streams if isinstance(s, VideoStream)),
        audio=tuple(s for s in streams if isinstance(s, AudioStream)),
        subtitles=tuple(s for s in streams if isinstance(s, SubtitleStream)),
        stream_count=len(streams),
    )


def plan(*streams: VideoStream | AudioStream, **settings: object) -> EncodePlan:
    return plan_encode(media(*streams), ConversionSettings(**settings))  # type: ignore[arg-type]


def test_presets_are_the_contracts() -> None:
    """VC-06, VC-07, VC-08, VC-56, VC-57, VC-58, VC-59."""
    assert {name: (p.width, p.height, p.video_bitrate, p.audio_bitrate) for name, p in PRESETS.items()} == {
        "360p": (640, 360, 800_000, 96_000),
        "480p": (854, 480, 1_400_000, 128_000),
        "720p": (1280, 720, 2_800_000, 128_000),
        "1080p": (1920, 1080, 5_000_000, 192_000),
    }
    assert DEFAULT_FORMATS == ("360p", "480p", "720p")
    assert FFMPEG_PRESETS == ("ultrafast", "veryfast", "fast", "medium", "slow", "veryslow")


def test_default_ladder() -> None:
    """VC-07, VC-56, VC-57, VC-58: requested order, the seed's rates, one audio encode per distinct rate."""
    made = plan(HD, STEREO)
    assert [r.name for r in made.renditions] == ["360p", "480p", "720p"]
    sizes = [made.video_of(r) for r in made.renditions]
    assert [(t.width, t.height, t.bitrate) for t in sizes if t] == [
        (640, 360, 800_000),
        (854, 480, 1_400_000),
        (1280, 720, 2_800_000),
    ]
    assert [made.audio_bitrate_of(r) for r in made.renditions] == [96_000, 128_000, 128_000]
    assert made.audio_tracks == (96_000, 128_000)
    assert made.preset == "fast"
    assert (made.gop_frames, made.segment_sec, made.target_duration) == (60, Fraction(2), 2)


@pytest.mark.parametrize(
    ("source", "preset", "expected"),
    [
        ((1920, 1080), "360p", (640, 360)),
        ((1080, 1920), "360p", (360, 640)),
        ((1080, 1920), "720p", (720, 1280)),
        ((640, 480), "360p", (480, 360)),
        ((1000, 1000), "480p", (480, 480)),
        ((2560, 1080), "1080p", (1920, 810)),
        ((641, 361), "360p", (640, 360)),
        ((321, 181), "720p", (320, 180)),
        ((321, 181), "1080p", (320, 180)),
        ((3, 2), "360p", (2, 2)),
    ],
)
def test_size(source: tuple[int, int], preset: str, expected: tuple[int, int]) -> None:
    """VC-54, VC-55, VC-60, design 12: fitted, turned for portrait, even, never larger than the source."""
    assert rendition_size(*source, PRESETS[preset]) == expected


@given(st.integers(2, 8192), st.integers(2, 8192), st.sampled_from(sorted(PRESETS)))
def test_size_always_fits(width: int, height: int, name: str) -> None:
    """VC-54, VC-55 for every size."""
    made = rendition_size(width, height, PRESETS[name])
    box = sorted((PRESETS[name].width, PRESETS[name].height))
    assert all(length % 2 == 0 and length >= 2 for length in made)
    assert made[0] <= width
    assert made[1] <= height
    assert max(made) <= box[1]
    assert min(made) <= max(box[0], 2)


def test_aspect_ratio_is_kept_within_a_percent() -> None:
    """VC-54."""
    for width, height in ((1920, 1080), (1000, 700), (720, 1280), (2560, 1080)):
        for preset in PRESETS.values():
            made = rendition_size(width, height, preset)
            assert made[0] / made[1] == pytest.approx(width / height, rel=0.01)


def test_small_sources_keep_every_rendition() -> None:
    """B-56, design 12: each requested folder is made, equal ones from one encode."""
    small = replace(HD, coded_width=320, coded_height=180, width=320, height=180, bit_rate=200_000)
    made = plan(small, STEREO, output_formats=("360p", "480p", "720p", "1080p"))
    assert [r.name for r in made.renditions] == ["360p", "480p", "720p", "1080p"]
    assert len(made.video_tracks) == 1
    assert made.video_tracks[0].bitrate == 260_000


def test_bit_rate_is_capped_by_the_source() -> None:
    """Encoding-and-safety 1.6: 1.3 × source × (pixel share)^0.75, more for denser codecs, never under the floor."""
    thin = replace(HD, bit_rate=1_000_000)
    rates = {t.height: t.bitrate for t in plan(thin, STEREO).video_tracks}
    assert rates == {720: 707_630, 480: 385_410, 360: 250_185}
    dense = plan(replace(thin, codec="hevc"), STEREO).video_tracks[0].bitrate
    assert dense == pytest.approx(707_630 * 1.6, abs=2)
    assert plan(replace(HD, bit_rate=10_000), STEREO).video_tracks[-1].bitrate == 64_000


def test_bit_rate_of_the_container_stands_in() -> None:
    info = replace(media(replace(HD, bit_rate=None), STEREO), bit_rate=1_128_000)
    assert plan_encode(info, ConversionSettings()).video_tracks[0].bitrate == 707_630


@pytest.mark.parametrize(
    ("average", "base", "field_order", "expected"),
    [
        ("30", "30", "progressive", Fraction(30)),
        ("30000/1001", "30000/1001", "progressive", Fraction(30000, 1001)),
        ("359640/12001", "30000/1001", "progressive", Fraction(30000, 1001)),
        ("12.5", "12.5", "progressive", Fraction(25, 2)),
        ("540/29", "30", "progressive", Fraction(30)),
        ("23.7", "1000", "progressive", Fraction(24000, 1001)),
        ("29.4", "120", "progressive", Fraction(30000, 1001)),
        ("120", "120", "progressive", Fraction(60)),
        ("120000/1001", "120000/1001", "progressive", Fraction(60000, 1001)),
        ("90", "90", "progressive", Fraction(45)),
        ("144", "144", "progressive", Fraction(48)),
        ("100", "100", "progressive", Fraction(50)),
        ("25", "50", "interlaced", Fraction(25)),
        ("1/2", "1/2", "progressive", Fraction(1)),
        ("1/10", "1/10", "progressive", Fraction(1)),
        (None, None, "progressive", Fraction(25)),
        (None, "25", "progressive", Fraction(25)),
    ],
)
def test_frame_rate(average: str | None, base: str | None, field_order: str, expected: Fraction) -> None:
    """Design 13: the source's rate, at most 60; variable rates become the nearest standard one (1.6)."""
    stream = replace(
        HD,
        fps_average=Fraction(average) if average else None,
        fps_base=Fraction(base) if base else None,
        field_order=field_order,
    )
    assert output_fps(stream) == expected


@pytest.mark.parametrize(
    ("fps", "hls_time", "gop", "frames"),
    [
        ("30", "2", 60, 60),
        ("25", "2", 50, 50),
        ("30000/1001", "2", 60, 60),
        ("24000/1001", "2", 48, 48),
        ("60000/1001", "2", 120, 120),
        ("30000/1001", "6", 60, 180),
        ("25", "10", 50, 250),
        ("25", "1", 25, 25),
        ("25", "1.5", 38, 38),
        ("30", "2.5", 75, 75),
        ("60", "7", 105, 420),
        ("1", "1", 1, 1),
        ("1", "10", 2, 10),
    ],
)
def test_segment_grid(fps: str, hls_time: str, gop: int, frames: int) -> None:
    """VC-11, VC-12: the nearest whole number of frames, IDRs about every 2 s."""
    assert segment_grid(Fraction(fps), Fraction(hls_time)) == (gop, frames)


@given(
    st.sampled_from(
        ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60", "12.5", "15", "37/3"]
    ),
    st.integers(10, 100).map(lambda tenths: Fraction(tenths, 10)),
)
def test_segments_keep_to_the_wish(fps: str, hls_time: Fraction) -> None:
    """VC-12, Apple [7.7]: within a frame or two of `hlsTime` in whole GOPs of at most 2.5 s."""
    rate = Fraction(fps)
    gop, frames = segment_grid(rate, hls_time)
    assert frames % gop == 0
    assert abs(frames / rate - hls_time) <= 2 / rate
    assert gop / rate <= Fraction(5, 2) + 1 / rate


def test_fractional_frame_rates_stay_exact() -> None:
    """2.8 case 9."""
    made = plan(
        replace(HD, fps_average=Fraction(30000, 1001), fps_base=Fraction(30000, 1001)), hls_time=Fraction(6)
    )
    assert made.segment_sec == Fraction(6006, 1000)
    assert made.target_duration == 6


@pytest.mark.parametrize(
    ("width", "height", "fps", "level"),
    [(640, 360, 30, "3.0"), (854, 480, 30, "3.1"), (1280, 720, 30, "3.1"), (1280, 720, 60, "3.2"),
     (1920, 1080, 30, "4.0"), (1920, 1080, 60, "4.2")],
)  # fmt: skip
def test_level(width: int, height: int, fps: int, level: str) -> None:
    """Apple [1.2]: no level above 4.2, whatever the preset."""
    stream = replace(
        HD, coded_width=width, coded_height=height, width=width, height=height,
        fps_average=Fraction(fps), fps_base=Fraction(fps),
    )  # fmt: skip
    assert plan(stream, output_formats=("1080p",)).video_tracks[0].level == level


def test_sound_only() -> None:
    """Design 13: every requested folder holds sound at its own rate."""
    made = plan(STEREO, output_formats=("360p", "1080p"))
    assert made.video_tracks == ()
    assert made.audio_tracks == (96_000, 192_000)
    assert made.fps is None
    assert [made.audio_bitrate_of(r) for r in made.renditions] == [96_000, 192_000]


def test_cover_art_is_no_video() -> None:
    cover = replace(HD, index=2, codec="png", attached_picture=True)
    made = plan(cover, STEREO)
    assert made.video_tracks == ()
    assert made.cover_index == 2


def test_picture_only() -> None:
    """B-57."""
    made = plan(HD)
    assert made.audio_tracks == ()
    assert all(rendition.audio is None for rendition in made.renditions)


def test_choice_of_streams() -> None:
    """1.6: the default picture, else the largest; the default sound, else the first; text subtitles."""
    small = replace(HD, index=3, coded_width=320, coded_height=180, width=320, height=180)
    english = replace(STEREO, index=4, default=True)
    text = SubtitleStream(5, "subrip", "eng")
    bitmap = SubtitleStream(6, "hdmv_pgs_subtitle", "eng")
    made = plan_encode(media(HD, small, STEREO, english, text, bitmap), ConversionSettings())
    assert (made.video_index, made.audio_index, made.subtitle_indexes) == (0, 4, (5,))
    preferred = plan_encode(media(HD, replace(small, default=True), STEREO), ConversionSettings())
    assert (preferred.video_index, preferred.audio_index) == (3, 1)


def test_ends_are_evened_out() -> None:
    """Silence up to the picture's end; the last picture up to the sound's."""
    quiet = plan(HD, replace(STEREO, duration_sec=50.0))
    assert (quiet.audio_until_sec, quiet.fixes.pad_sec) == (60.0, 0.0)
    frozen = plan(replace(HD, duration_sec=50.0), STEREO)
    assert (frozen.audio_until_sec, frozen.fixes.pad_sec) == (None, 10.0)
    late = plan(HD, replace(STEREO, start_sec=5.0))
    assert late.fixes.pad_sec == 5.0
    even = plan(HD, replace(STEREO, duration_sec=60.02))
    assert (even.audio_until_sec, even.fixes.pad_sec) == (60.0, 0.0)
    untold = plan(replace(HD, duration_sec=None), STEREO)
    assert (untold.audio_until_sec, untold.fixes.pad_sec) == (None, 0.0)


def test_expected_end() -> None:
    """Subtitles that outlast the film do not make it look truncated."""
    longer = plan_encode(media(HD, STEREO, duration=90.0), ConversionSettings())
    assert longer.expected_sec == 60.0
    untold = plan_encode(media(replace(HD, duration_sec=None), STEREO, duration=61.0), ConversionSettings())
    assert untold.expected_sec == 61.0
    assert (
        plan_encode(media(replace(HD, duration_sec=None), duration=None), ConversionSettings()).expected_sec
        is None
    )


@pytest.mark.parametrize(
    ("changes", "fix", "value"),
    [
        ({"field_order": "interlaced"}, "deinterlace", True),
        ({"color_transfer": "smpte2084"}, "hdr", "pq"),
        ({"color_transfer": "arib-std-b67"}, "hdr", "hlg"),
        ({"color_primaries": "bt2020"}, "wide_gamut", True),
        ({"color_range": "pc"}, "full_range", True),
        ({"pix_fmt": "yuvj420p"}, "full_range", True),
        ({"color_space": "smpte170m"}, "matrix", "smpte170m"),
        ({"color_space": "bt709"}, "matrix", ""),
        ({"coded_width": 720, "coded_height": 576}, "matrix", "smpte170m"),
        ({"pix_fmt": "gbrp"}, "matrix", ""),
        ({}, "matrix", ""),
    ],
)
def test_fixes(changes: dict[str, object], fix: str, value: object) -> None:
    """1.6: what the picture needs besides scaling follows from its tags, and from its size where there are none."""
    assert getattr(plan(replace(HD, **changes)).fixes, fix) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(100, 4000), (4000, 100), (1, 500)])
def test_extreme_shapes_are_refused(size: tuple[int, int]) -> None:
    """2.8 case 6: more than 20:1."""
    with pytest.raises(MediaError) as caught:
        plan(replace(HD, width=size[0], height=size[1]))
    assert caught.value.code == UNSUPPORTED_FORMAT
