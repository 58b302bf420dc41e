"""The validator finds what it is there to find: each kind of damage to a sound ladder is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from adapters.ffmpeg.audit import audit
from server.domain.hls_audit import quick_audit
from tests.integration.encode_stage import make_ladder
from tests.media import Clip, ClipFactory

Objects = dict[str, bytes]
RENDITIONS = ["360p", "480p"]


@pytest.fixture(scope="module")
def _sound(clips: ClipFactory, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    folder = tmp_path_factory.mktemp("sound")
    asyncio.run(make_ladder(clips.clip(Clip(size="640x360", seconds=6)), folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def objects(_sound: Objects) -> Objects:
    return dict(_sound)


def findings(objects: Objects) -> str:
    return "\n".join(map(str, audit(objects.__getitem__, renditions=RENDITIONS)))


def replaced(objects: Objects, key: str, pattern: str, by: str) -> None:
    text = objects[key].decode()
    changed = re.sub(pattern, by, text, count=1)
    assert changed != text
    objects[key] = changed.encode()


def test_a_sound_ladder_has_no_findings(objects: Objects) -> None:
    assert findings(objects) == ""
    assert quick_audit(objects.__getitem__, renditions=RENDITIONS) == []


@pytest.mark.parametrize(
    ("key", "pattern", "by", "told"),
    [
        ("master.m3u8", "#EXT-X-INDEPENDENT-SEGMENTS\n", "", "no EXT-X-INDEPENDENT-SEGMENTS"),
        ("master.m3u8", r',CODECS="[^"]*"', "", "no CODECS"),
        ("master.m3u8", r"avc1\.\w+", "avc1.640029", "announced are"),
        ("master.m3u8", r"RESOLUTION=\d+x", "RESOLUTION=100x", "is 640x360"),
        ("master.m3u8", r",RESOLUTION=\w+", "", "no RESOLUTION"),
        ("master.m3u8", r"FRAME-RATE=25", "FRAME-RATE=50", "frame distances"),
        ("master.m3u8", ",CLOSED-CAPTIONS=NONE", "", "CLOSED-CAPTIONS"),
        ("master.m3u8", "360p/playlist", "240p/playlist", "asked for were"),
        ("master.m3u8", r"([:,]BANDWIDTH=)\d+", r"\g<1>90000000", "BANDWIDTH 90000000 announced"),
        ("master.m3u8", r"(AVERAGE-BANDWIDTH=)\d+", r"\g<1>1000", "AVERAGE-BANDWIDTH 1000 announced"),
        ("360p/playlist.m3u8", "#EXT-X-ENDLIST\n", "", "ENDLIST"),
        ("360p/playlist.m3u8", "VOD", "EVENT", "not of type VOD"),
        ("360p/playlist.m3u8", "TARGETDURATION:2", "TARGETDURATION:1", "exceeds the target duration"),
        ("360p/playlist.m3u8", "TARGETDURATION:2", "TARGETDURATION:3", "different target durations"),
        ("360p/playlist.m3u8", "EXTINF:2.000000", "EXTINF:1.900000", "EXTINF 1.9"),
        ("360p/playlist.m3u8", "segment_001.ts", "segment_002.ts", "stands at place 1"),
    ],
)
def test_damaged_playlist(objects: Objects, key: str, pattern: str, by: str, told: str) -> None:
    """Issue 5: each announced value is checked against the objects."""
    replaced(objects, key, pattern, by)
    assert told in findings(objects)


def _drop(objects: Objects) -> None:
    del objects["480p/segment_001.ts"]


def _break_sync(objects: Objects) -> None:
    objects["360p/segment_000.ts"] = b"\0" + objects["360p/segment_000.ts"][1:]


def _swap(objects: Objects) -> None:
    objects["360p/segment_000.ts"], objects["360p/segment_001.ts"] = (
        objects["360p/segment_001.ts"],
        objects["360p/segment_000.ts"],
    )


def _mix(objects: Objects) -> None:
    objects["480p/segment_001.ts"] = objects["360p/segment_002.ts"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop, "segment_001.ts: is missing"),
        (_break_sync, "is no transport stream"),
        (_swap, "to the next segment"),
        (_mix, "IDRs or end differ"),
    ],
)
def test_damaged_segment(objects: Objects, damage: Callable[[Objects], None], told: str) -> None:
    """Issue 5: VC-64's sync byte and contiguity, Apple [7.2], [8.22]."""
    damage(objects)
    assert told in findings(objects)


def test_segment_without_idr(objects: Objects) -> None:
    """Apple [7.4], also by the quick check."""
    data = objects["360p/segment_000.ts"]
    middle = len(data) // 188 // 2 * 188
    objects["360p/segment_000.ts"] = data[: 3 * 188] + data[middle:]
    assert "does not start with an IDR" in findings(objects)
    quick = quick_audit(objects.__getitem__, renditions=RENDITIONS)
    assert any("IDR" in finding.problem for finding in quick)


def test_missing_master(objects: Objects) -> None:
    del objects["master.m3u8"]
    assert findings(objects) == "master.m3u8: is missing"
