"""Manifests: ours (design section 13) and LiveKit's (livekit-surface.md 2.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from server.domain.egress_sources import ParticipantSource, Source, TrackSource, WebSource
from server.egress.journal import Reported
from server.egress.manifest import (
    ManifestObject,
    estimated_joins,
    livekit_manifest,
    livekit_manifest_key,
    manifest,
    manifest_key,
)
from server.ports.recorder import Join, Joined, Measured, TrackSeen
from tests.unit.egress.capturing import BEGAN, SECOND, egress_of, footage_of

FILE = ManifestObject("recordings/rec_1.mp4", 5, "abc", "https://host/recordings/rec_1.mp4")
PAUSE: Mapping[str, int | str] = {"startMs": 1000, "durationMs": 500, "reason": "PAUSED"}


def test_the_shape_is_the_designs() -> None:
    footage = footage_of((0, Measured(4000, 120, 3, 1, 12.0, 99), ""))
    footage.apply(Reported(0, TrackSeen("TR_1", "alice", "video", "vp8", 250, 3750)))
    made = manifest(egress_of(), footage, [FILE], [Join(0, 0, 4000)], 4000, {"baxcloud": "1"})
    assert made == {
        "egressId": "EG_1",
        "recordingId": "rec_1",
        "objects": [{"key": "recordings/rec_1.mp4", "size": 5, "sha256": "abc", "contentType": "video/mp4"}],
        "durationMs": 4000,
        "framesComposed": 120,
        "framesRepeated": 3,
        "framesDropped": 1,
        "audioOffsetMs": 12.0,
        "gaps": [],
        "tracks": [
            {
                "sid": "TR_1",
                "identity": "alice",
                "kind": "video",
                "codec": "vp8",
                "startMs": 250,
                "endMs": 3750,
            }
        ],
        "versions": {"baxcloud": "1"},
    }


def test_counts_add_up_and_the_offset_is_weighed() -> None:
    footage = footage_of(
        (0, Measured(1000, 30, 1, 2, 10.0), ""), (2, Measured(3000, 90, 3, 4, 30.0), "RECORDER_LOST")
    )
    made = manifest(egress_of(), footage, [], estimated_joins(footage), 4000, {})
    assert (made["framesComposed"], made["framesRepeated"], made["framesDropped"]) == (120, 4, 6)
    assert made["audioOffsetMs"] == 25.0


def test_gaps_lie_where_the_file_lacks_something() -> None:
    """A part ends where its file does, not where its recorder said last; pauses are no loss but are told of."""
    footage = footage_of(
        (0, Measured(4100, gaps=(PAUSE,)), ""),
        (6, Measured(2000, gaps=(PAUSE,)), "RECORDER_LOST"),
        (8.4, Measured(1000), "WORKER_LOST"),
    )
    joins = [Join(0, 0, 4000), Join(1, 4000, 2000), Join(2, 6000, 1000)]
    assert manifest(egress_of(), footage, [], joins, 7000, {})["gaps"] == [
        {"startMs": 1000, "durationMs": 500, "reason": "PAUSED"},
        {"startMs": 4000, "durationMs": 1500, "reason": "RECORDER_LOST"},
        {"startMs": 5000, "durationMs": 500, "reason": "PAUSED"},
        {"startMs": 6000, "durationMs": 0, "reason": "WORKER_LOST"},
    ]


def test_what_another_host_has_is_a_gap_at_the_start() -> None:
    footage = footage_of((9, Measured(1000), ""))
    made = manifest(egress_of(active_at=BEGAN), footage, [], [Join(0, 0, 1000)], 1000, {})
    assert made["gaps"] == [{"startMs": 0, "durationMs": 9000, "reason": "WORKER_LOST"}]


def test_a_track_ends_with_its_part() -> None:
    """One that was there when the recorder died has no end of its own."""
    footage = footage_of((0, Measured(4000), ""), (5, Measured(2000), "RECORDER_LOST"))
    footage.apply(Reported(0, TrackSeen("TR_1", "alice", "audio", "opus", 0)))
    footage.apply(Reported(1, TrackSeen("TR_1", "alice", "audio", "opus", 100, 9999)))
    made = manifest(egress_of(), footage, [], [Join(0, 0, 3900), Join(1, 3900, 2000)], 5900, {})
    assert [(row["startMs"], row["endMs"]) for row in made["tracks"]] == [(0, 3900), (4000, 5900)]


@pytest.mark.parametrize(
    ("key", "ours", "livekits"),
    [
        ("recordings/rec_1.mp4", "recordings/rec_1.manifest.json", "recordings/EG_1.json"),
        ("live.v2/index.m3u8", "live.v2/index.manifest.json", "live.v2/EG_1.json"),
        ("plain", "plain.manifest.json", "EG_1.json"),
    ],
)
def test_keys(key: str, ours: str, livekits: str) -> None:
    assert manifest_key(key) == ours
    assert livekit_manifest_key(key, "EG_1") == livekits


def test_livekits_form() -> None:
    """Section 2.6: compact, one newline, no empty keys, no HTML escapes."""
    footage = footage_of((0, Measured(1000), ""))
    playlist = ManifestObject("a/i.m3u8", 9, "", "https://host/a/i.m3u8", "playlist")
    live = ManifestObject("a/live.m3u8", 9, "", "https://host/a/live.m3u8", "playlist")
    segment = ManifestObject("a/s_0.ts", 9, "", "https://host/a/s_0.ts", "segment", playlist.location)
    image = ManifestObject("a/p.jpeg", 9, "", "https://host/a/p.jpeg", "image", at=BEGAN + SECOND // 2)
    egress = egress_of(room_name="a & b <c>")
    made = livekit_manifest(egress, footage, [FILE, playlist, live, segment, image], BEGAN + SECOND)
    assert made.endswith(b"}\n")
    assert b": " not in made
    assert b"a & b <c>" in made
    assert json.loads(made) == {
        "egress_id": "EG_1",
        "room_id": "RM_1",
        "room_name": "a & b <c>",
        "started_at": BEGAN,
        "ended_at": BEGAN + SECOND,
        "files": [{"filename": FILE.key, "location": FILE.location}],
        "playlists": [
            {
                "location": playlist.location,
                "segments": [{"filename": segment.key, "location": segment.location}],
            }
        ],
        "images": [
            {
                "filename": image.key,
                "timestamp": "2027-01-15T08:00:00.500000Z",
                "location": image.location,
            }
        ],
    }


def test_livekits_form_names_the_source() -> None:
    footage = footage_of((0, Measured(1000), ""))
    footage.apply(Reported(0, Joined("RM_1", "alice", "TR_1", "video", "camera", "webm")))
    plan = egress_of().plan
    sources: dict[str, tuple[Source, str]] = {
        "url": (WebSource("https://page"), "https://page"),
        "publisher_identity": (ParticipantSource("alice"), "alice"),
        "track_source": (TrackSource("TR_1"), "camera"),
    }
    for name, (source, value) in sources.items():
        made = json.loads(livekit_manifest(egress_of(plan=replace(plan, source=source)), footage, [], BEGAN))
        assert made[name] == value
