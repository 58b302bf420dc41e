"""Playlists and the rates in them."""

from __future__ import annotations

from fractions import Fraction

from server.domain.hls import (
    Segment,
    SubtitleVariant,
    Variant,
    average_rate,
    master_playlist,
    media_playlist,
    peak_rate,
    planned_variant,
    segment_name,
)
from server.domain.hls_audit import parse_master, parse_media
from server.domain.ladder import ConversionSettings, plan_encode
from tests.unit.domain.test_ladder import HD, STEREO, media

_CODECS = ("avc1.64001f", "mp4a.40.2")


def variant(name: str, rate: int) -> Variant:
    return Variant(name, rate, rate, _CODECS, 1280, 720, Fraction(30000, 1001))


def test_segment_names() -> None:
    """VC-64; 2.8 case 12: more digits when needed."""
    assert [segment_name(index) for index in (0, 7, 999, 1000)] == [
        "segment_000.ts",
        "segment_007.ts",
        "segment_999.ts",
        "segment_1000.ts",
    ]


def test_growing_and_finished_playlist() -> None:
    """Issue 5: EVENT while encoding, VOD with ENDLIST at the end, the same target duration in both."""
    segments = [Segment("segment_000.ts", 2.002, 1000), Segment("segment_001.ts", 0.5, 300)]
    growing = media_playlist(segments[:1], target_duration=2, ended=False)
    finished = media_playlist(segments, target_duration=2, ended=True)
    assert growing == (
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:EVENT\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n#EXTINF:2.002000,\nsegment_000.ts\n"
    )
    assert finished.endswith("#EXTINF:0.500000,\nsegment_001.ts\n#EXT-X-ENDLIST\n")
    assert parse_media(finished).tags["#EXT-X-PLAYLIST-TYPE"] == "VOD"
    assert parse_media(finished).target_duration == 2


def test_target_duration_covers_the_longest_segment() -> None:
    """RFC 8216 4.3.3.1: EXTINF rounded half up is never above it, and it is at least 1."""
    long = media_playlist([Segment("segment_000.ts", 2.5, 1)], target_duration=2, ended=True)
    assert parse_media(long).target_duration == 3
    short = media_playlist([Segment("segment_000.ts", 0.04, 1)], target_duration=0, ended=True)
    assert parse_media(short).target_duration == 1


def test_master() -> None:
    """VC-61; Apple [1.32]: one STREAM-INF per rendition, relative, the one nearest to 2 Mbit/s first."""
    text = master_playlist([variant("360p", 900_000), variant("480p", 1_600_000), variant("720p", 3_200_000)])
    parsed = parse_master(text)
    assert [v.uri for v in parsed.variants] == [
        "480p/playlist.m3u8",
        "360p/playlist.m3u8",
        "720p/playlist.m3u8",
    ]
    assert parsed.variants[0].attributes == {
        "BANDWIDTH": "1600000",
        "AVERAGE-BANDWIDTH": "1600000",
        "CODECS": "avc1.64001f,mp4a.40.2",
        "RESOLUTION": "1280x720",
        "FRAME-RATE": "29.970",
        "CLOSED-CAPTIONS": "NONE",
    }


def test_sound_only_master() -> None:
    """Design 13: no RESOLUTION or FRAME-RATE without pictures."""
    text = master_playlist([Variant("360p", 100_000, 99_000, ("mp4a.40.2",))])
    assert '#EXT-X-STREAM-INF:BANDWIDTH=100000,AVERAGE-BANDWIDTH=99000,CODECS="mp4a.40.2"\n' in text


def test_subtitle_group() -> None:
    """Apple [8.10]: LANGUAGE on every EXT-X-MEDIA; a name cannot break out of its quotes."""
    track = SubtitleVariant("subtitles/de", "de", 'Deutsch "voll"\n#EXT', default=True)
    parsed = parse_master(master_playlist([variant("720p", 3_000_000)], [track]))
    assert parsed.media[0] == {
        "TYPE": "SUBTITLES",
        "GROUP-ID": "subs",
        "NAME": "Deutsch voll#EXT",
        "LANGUAGE": "de",
        "DEFAULT": "YES",
        "AUTOSELECT": "YES",
        "FORCED": "NO",
        "URI": "subtitles/de/playlist.m3u8",
    }
    assert parsed.variants[0].attributes["SUBTITLES"] == "subs"


def test_rates() -> None:
    """RFC 8216 4.1, Apple [1.26], [1.27]: peak over runs of 0.5 to 1.5 target durations, average over all."""
    segments = [
        Segment("a", 2.0, 250_000),
        Segment("b", 2.0, 500_000),
        Segment("c", 2.0, 250_000),
        # A tail of one key frame; its own rate says nothing.
        Segment("d", 0.1, 100_000),
    ]
    assert average_rate(segments) == int(1_100_000 * 8 / 6.1) + 1
    assert peak_rate(segments, 2) == 2_000_001
    assert peak_rate([Segment("a", 0.1, 1000)], 2) == average_rate([Segment("a", 0.1, 1000)])
    assert peak_rate([], 2) == 0


def test_peak_looks_at_runs_of_short_segments() -> None:
    segments = [Segment(str(i), 0.8, size) for i, size in enumerate((10_000, 100_000, 100_000, 10_000))]
    assert peak_rate(segments, 2) == 1_000_001


def test_early_variant_is_an_upper_bound() -> None:
    """Issue 5: before the end the encoder's own limits are announced."""
    plan = plan_encode(media(HD, STEREO), ConversionSettings())
    early = planned_variant(plan, plan.renditions[2], _CODECS)
    assert early.average_bandwidth >= 2_800_000 + 128_000
    assert early.bandwidth >= 2_800_000 * 1.25 + 128_000
    assert (early.width, early.height, early.fps) == (1280, 720, Fraction(30))
