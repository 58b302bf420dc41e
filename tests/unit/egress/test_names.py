"""Templates and names of files, segments, playlists and images (livekit-surface.md 3).

LK-61, LK-67, LK-73, LK-74, LK-75, LK-76.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from server.domain.egress import FileOutput, ImagesOutput, SegmentsOutput
from server.egress.names import Facts, clean, file_key, fill, image_names, segment_names

AT = datetime(2026, 5, 4, 3, 2, 1, 987_654, UTC)
FACTS = Facts(at=AT, room_name="town hall", room_id="RM_1")
NS = int(AT.timestamp() * 1_000_000) * 1000


def test_placeholders() -> None:
    """What is not known, or is no placeholder, stays as it is."""
    text = "{room_name}/{room_id}/{time}/{utc}/{publisher_identity}/{track_id}/{retry}/{nothing}/{}"
    assert fill(text, FACTS) == (
        "town hall/RM_1/2026-05-04T030201/20260504030201987/{publisher_identity}/{track_id}/{retry}/{nothing}/{}"
    )
    late = replace(
        FACTS,
        publisher_identity="ann",
        track_id="TR_1",
        track_type="video",
        track_source="screen_share",
    )
    assert (
        fill("{publisher_identity}-{track_id}-{track_type}-{track_source}", late)
        == "ann-TR_1-video-screen_share"
    )


def test_values_are_not_templates() -> None:
    assert fill("{room_name}", replace(FACTS, room_name="{time}")) == "{time}"


@pytest.mark.parametrize(
    ("path", "container", "key"),
    [
        ("", "mp4", "town hall-2026-05-04T030201.mp4"),
        ("a/", "ogg", "a/town hall-2026-05-04T030201.ogg"),
        ("a/b.mp4", "mp4", "a/b.mp4"),
        ("a.webm", "mp4", "a.mp4"),
        ("a.mkv", "mp4", "a.mkv.mp4"),
        ("../../a//b/../c", "mp4", "a/c.mp4"),
        ("/abs/a", "mp4", "abs/a.mp4"),
        ("..", "mp4", "town hall-2026-05-04T030201.mp4"),
    ],
)
def test_file_names(path: str, container: str, key: str) -> None:
    """LK-61: the default name; known extensions are replaced, others kept."""
    assert file_key(FileOutput(container, path), FACTS, container) == key


def test_default_names_by_source() -> None:
    """LK-67: `{track_id}-{time}`; a page has no room."""
    track = replace(FACTS, track_id="TR_1")
    assert file_key(FileOutput("", ""), track, "webm") == "TR_1-2026-05-04T030201.webm"
    assert file_key(FileOutput("mp4", ""), Facts(at=AT), "mp4") == "web-2026-05-04T030201.mp4"


def test_a_room_cannot_leave_its_storage() -> None:
    hostile = replace(FACTS, room_name="../../etc/passwd")
    assert file_key(FileOutput("mp4", "x/{room_name}"), hostile, "mp4") == "etc/passwd.mp4"
    assert not file_key(FileOutput("mp4", ""), hostile, "mp4").startswith((".", "/"))
    assert segment_names(SegmentsOutput(prefix=""), hostile).prefix == "passwd-2026-05-04T030201"


@pytest.mark.parametrize(
    ("prefix", "playlist", "live", "names"),
    [
        ("", "", "", ("town hall-2026-05-04T030201.m3u8", "", "town hall-2026-05-04T030201")),
        ("live/seg", "", "", ("live/seg.m3u8", "", "live/seg")),
        ("", "p/index.m3u8", "", ("p/index.m3u8", "", "p/index")),
        ("p/seg", "p/index.m3u8", "now.m3u8", ("p/index.m3u8", "p/now.m3u8", "p/seg")),
        ("media/seg", "p/index", "p/now", ("p/index.m3u8", "p/now.m3u8", "p/media/seg")),
        ("p/seg", "index", "", ("p/index.m3u8", "", "p/seg")),
        ("s", "v1.2-rec", "", ("v1.m3u8", "", "s")),
        ("your-hls-playlist.m3u8", "", "", ("your-hls-playlist.m3u8", "", "your-hls-playlist.m3u8")),
    ],
)
def test_segment_names(prefix: str, playlist: str, live: str, names: tuple[str, str, str]) -> None:
    """LK-73, LK-74: each name may stand in for the other, a folder counts for all."""
    found = segment_names(SegmentsOutput(prefix=prefix, playlist=playlist, live_playlist=live), FACTS)
    assert (found.playlist, found.live_playlist, found.prefix) == names


def test_segments_and_their_place_in_playlists() -> None:
    """LK-76: INDEX counts with five digits, TIMESTAMP is UTC (B-70)."""
    names = segment_names(SegmentsOutput(prefix="media/seg", playlist="p/index"), FACTS)
    assert names.segment(7, NS) == "p/media/seg_00007.ts"
    assert names.in_playlist(names.segment(7, NS)) == "media/seg_00007.ts"
    stamped = segment_names(SegmentsOutput(prefix="seg", suffix="timestamp"), FACTS)
    assert stamped.segment(7, NS) == "seg_20260504030201987.ts"
    assert stamped.in_playlist("seg_1.ts") == "seg_1.ts"


@pytest.mark.parametrize(
    ("prefix", "suffix", "key"),
    [
        ("t/shot", "index", "t/shot_00003.jpeg"),
        ("t/shot", "timestamp", "t/shot_20260504030201987.jpeg"),
        ("t/shot", "none", "t/shot.jpeg"),
        ("t/", "index", "t/town hall-2026-05-04T030201_00003.jpeg"),
    ],
)
def test_image_names(prefix: str, suffix: str, key: str) -> None:
    """LK-87, LK-88."""
    assert image_names(ImagesOutput(prefix, suffix=suffix), FACTS).image(3, NS) == key


def test_cleaned_paths_keep_a_folder_a_folder() -> None:
    assert [clean(path) for path in ("", ".", "..", "a/", "/", "a/./b", "../a/")] == [
        "", "", "", "a/", "", "a/b", "a/",
    ]  # fmt: skip
