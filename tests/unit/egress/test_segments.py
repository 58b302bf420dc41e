"""HLS playlists of egresses, and segments that a recorder could not tell of."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.domain.mpegts import PACKET
from server.egress.journal import Journal, PartBegun, Reported
from server.egress.segments import PlaylistEntry, adopt_segments, live_playlist, main_playlist
from server.ports.recorder import Active, SegmentWritten
from tests.media import Clip, ClipFactory
from tests.unit.egress.capturing import BEGAN, SECOND


def entries(count: int, *begins: int) -> list[PlaylistEntry]:
    return [
        PlaylistEntry(f"seg_{number:05d}.ts", 4.0, BEGAN + number * 4 * SECOND, number in begins)
        for number in range(count)
    ]


def test_the_main_playlist_is_livekits() -> None:
    """livekit-surface.md 3.3."""
    assert main_playlist(entries(2), 4, ended=False) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:4\n"
        "#EXT-X-PLAYLIST-TYPE:EVENT\n"
        "#EXT-X-ALLOW-CACHE:NO\n"
        "#EXT-X-TARGETDURATION:4\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:00.000Z\n"
        "#EXTINF:4.000,\n"
        "seg_00000.ts\n"
        "#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:04.000Z\n"
        "#EXTINF:4.000,\n"
        "seg_00001.ts\n"
    )


def test_the_end_is_told_in_both() -> None:
    for text in (main_playlist(entries(2), 4, ended=True), live_playlist(entries(2), 4, ended=True)):
        assert text.endswith("seg_00001.ts\n#EXT-X-ENDLIST\n")


def test_the_live_playlist_shows_the_last_five() -> None:
    text = live_playlist(entries(7), 4, ended=False)
    assert "PLAYLIST-TYPE" not in text
    assert "#EXT-X-MEDIA-SEQUENCE:2\n" in text
    assert [line for line in text.splitlines() if line.endswith(".ts")] == [
        f"seg_{number:05d}.ts" for number in range(2, 7)
    ]


def test_discontinuities_are_counted_when_they_have_passed() -> None:
    """RFC 8216 4.3.3.3: a player that joins later must count the same."""
    text = live_playlist(entries(9, 2, 6), 4, ended=False)
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in text
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    assert "#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:24.000Z\n" in text
    assert "SEQUENCE:1\n" not in main_playlist(entries(9, 2, 6), 4, ended=False)


def test_a_longer_segment_raises_the_target() -> None:
    """RFC 8216 4.3.3.1: none may be longer, rounded."""
    long = PlaylistEntry("seg_00000.ts", 5.6, BEGAN)
    assert "#EXT-X-TARGETDURATION:6\n" in main_playlist([long], 4, ended=False)


def test_names_are_addresses() -> None:
    entry = PlaylistEntry("my room #1/séance_00000.ts", 4.0, BEGAN)
    assert "my%20room%20%231/s%C3%A9ance_00000.ts\n" in main_playlist([entry], 4, ended=False)


@pytest.mark.parametrize("cut", [0, 100, 60 * PACKET])
async def test_what_a_dead_recorder_wrote_is_adopted(tmp_path: Path, clips: ClipFactory, cut: int) -> None:
    """Issue section 5: whole or as far as it goes, behind what is known; garbage is removed."""
    whole = clips.clip(Clip(extension="ts", fps="25", seconds=2.0)).read_bytes()
    journal = await Journal.open(tmp_path)
    await journal.add(PartBegun(0, "", BEGAN))
    await journal.add(Reported(0, Active(BEGAN)))
    await journal.add(Reported(0, SegmentWritten("seg-000-00000.ts", 0, 2.0, BEGAN)))
    (tmp_path / "seg-000-00000.ts").write_bytes(whole)
    (tmp_path / "seg-000-00001.ts").write_bytes(whole[: len(whole) - cut])
    (tmp_path / "seg-000-00002.ts").write_bytes(b"not a transport stream")
    await adopt_segments(journal, 0)
    await adopt_segments(journal, 0)

    first, second = journal.footage.segments
    assert (second.file, second.number, second.started_at) == ("seg-000-00001.ts", 1, BEGAN + 2 * SECOND)
    assert not second.begins_part
    assert not (tmp_path / "seg-000-00002.ts").exists()
    if cut == 0:
        assert second.duration_sec == pytest.approx(2.0, abs=0.001)
    else:
        assert 0 < second.duration_sec <= 2.001
    assert len((tmp_path / "seg-000-00001.ts").read_bytes()) % PACKET == 0
    assert (await Journal.open(tmp_path)).footage.segments == [first, second]
