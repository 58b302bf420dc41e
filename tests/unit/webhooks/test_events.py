"""The event catalogue and subscription patterns."""

from __future__ import annotations

import pytest

from server.errors import Code, ServiceError
from server.webhooks.events import (
    BAXSTREAM_EVENTS,
    CORE_EVENTS,
    EGRESS_ENDED,
    EGRESS_UPDATED,
    RTCSTACK_EVENTS,
    SUBSCRIBABLE,
    TEST_EVENT,
    check_patterns,
    matches,
    rtcstack_names,
    wants,
)


def test_the_catalogue_is_the_seeds() -> None:
    """WH-20, WB-05: 17 core events (2 room, 2 participant, 3 recording, 4 stream, 4 live, 2 track) and 9 BaxStream."""
    groups = [name.split(".")[0] for name in CORE_EVENTS]
    assert {group: groups.count(group) for group in groups} == {
        "room": 2,
        "participant": 2,
        "recording": 3,
        "stream": 4,
        "live": 4,
        "track": 2,
    }
    assert len(set(CORE_EVENTS)) == 17
    assert len(set(BAXSTREAM_EVENTS)) == 9
    lifecycles = {name.rsplit(".", 1)[0] for name in BAXSTREAM_EVENTS}
    assert lifecycles == {"video.conversion", "categorization", "moderation"}
    assert len(SUBSCRIBABLE) == 17 + 9 + 2 + len(RTCSTACK_EVENTS)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "video.conversion.started", True),
        ("*", "room.started", True),
        ("*", EGRESS_ENDED, True),
        ("*", "egress_ended", False),
        ("*", "room_started", False),
        ("video.*", "video.conversion.completed", True),
        ("video.conversion.*", "video.conversion.completed", True),
        ("video.*", "moderation.completed", False),
        ("video.*", "videos.started", False),
        ("recording.*", "recording.failed", True),
        ("recording.*", EGRESS_ENDED, False),
        ("recording.completed", EGRESS_ENDED, False),
        ("egress.*", EGRESS_ENDED, True),
        ("egress.ended", EGRESS_ENDED, True),
        ("egress.*", EGRESS_UPDATED, True),
        ("*", EGRESS_UPDATED, True),
        ("recording.*", EGRESS_UPDATED, False),
        ("egress.*", "egress_ended", False),
        ("egress_ended", "egress_ended", True),
        ("recording_stopped", "recording.completed", False),
        ("room.started", "room.started", True),
        ("room.started", "room.finished", False),
    ],
)
def test_patterns_match_what_they_say(pattern: str, name: str, expected: bool) -> None:
    """WB-02, B-08, B-67: groups, everything and exact names; aliases only for those who asked for them."""
    assert matches(pattern, name) is expected
    assert wants(("track.published", pattern), name) is expected


@pytest.mark.parametrize("feature", ["categorization", "moderation"])
def test_the_start_of_standalone_ai_jobs_has_an_event_of_its_own(feature: str) -> None:
    """WB-09, WB-12: it can be asked for by name and by group, and is none of the conversion's."""
    name = f"{feature}.started"

    assert name in BAXSTREAM_EVENTS
    assert check_patterns([name, f"{feature}.*"]) == (name, f"{feature}.*")
    assert wants([f"{feature}.*"], name)
    assert not wants(["video.*", f"{feature}.completed"], name)
    assert rtcstack_names(name) == ()


def test_no_pattern_is_every_event_and_repeats_are_dropped() -> None:
    assert check_patterns([]) == ("*",)
    assert check_patterns(["video.*", "room.started", "video.*"]) == ("video.*", "room.started")


@pytest.mark.parametrize("name", SUBSCRIBABLE)
def test_every_event_can_be_subscribed_to(name: str) -> None:
    """WH-20; RTCstack's own list is accepted (contract F)."""
    assert check_patterns([name]) == (name,)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "video",
        "video.",
        "vid.*",
        "*.completed",
        "**",
        ".*",
        "video.conversion.done",
        TEST_EVENT,
        "VIDEO.*",
        " *",
    ],
)
def test_patterns_that_can_never_match_are_refused(pattern: str) -> None:
    with pytest.raises(ServiceError) as refused:
        check_patterns(["video.*", pattern])
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == "events"


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(ServiceError, match="at most 100"):
        check_patterns([f"room.started{n}" for n in range(101)])


def test_a_long_pattern_is_cut_in_the_message() -> None:
    with pytest.raises(ServiceError) as refused:
        check_patterns(["x" * 5_000])
    assert len(refused.value.message) < 300


def test_rtcstack_names_follow_canonical_events() -> None:
    """B-67: an end of a recording is `egress_ended` there."""
    assert "egress_ended" in rtcstack_names("recording.completed")
    assert rtcstack_names("room.started") == ("room_created", "room_started")
    assert rtcstack_names("video.conversion.started") == ()
    assert all(source in CORE_EVENTS for sources in RTCSTACK_EVENTS.values() for source in sources)
