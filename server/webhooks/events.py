"""The catalogue of webhook events and the patterns that subscribe to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from server.errors import invalid

CORE_EVENTS: tuple[str, ...] = (
    "room.started",
    "room.finished",
    "participant.joined",
    "participant.left",
    "recording.started",
    "recording.completed",
    "recording.failed",
    "stream.started",
    "stream.updated",
    "stream.completed",
    "stream.failed",
    "live.started",
    "live.updated",
    "live.ended",
    "live.failed",
    "track.published",
    "track.unpublished",
)
"""The 17 canonical core events (WH-20)."""

BAXSTREAM_EVENTS: tuple[str, ...] = (
    "video.conversion.started",
    "video.conversion.completed",
    "video.conversion.failed",
    "categorization.started",
    "categorization.completed",
    "categorization.failed",
    "moderation.started",
    "moderation.completed",
    "moderation.failed",
)
"""The nine BaxStream events (WB-05)."""

EGRESS_ENDED = "egress.ended"
"""Sent beside the canonical event, to those who asked for it, for `egress.*` or for everything (B-08)."""

EGRESS_UPDATED = "egress.updated"
"""A warning about an egress that goes on; the seeds' catalogue has no event for it. Asked for like `egress.ended`."""

RTCSTACK_EVENTS: Mapping[str, tuple[str, ...]] = {
    "egress_ended": ("recording.completed", "recording.failed"),
    "room_created": ("room.started",),
    "room_started": ("room.started",),
    "room_closed": ("room.finished",),
    "room_finished": ("room.finished",),
    "participant_joined": ("participant.joined",),
    "participant_left": ("participant.left",),
    "track_published": ("track.published",),
    "recording_started": ("recording.started",),
    "recording_stopped": ("recording.completed", "recording.failed"),
    "recording_finished": ("recording.completed", "recording.failed"),
    "ingress_started": ("live.started",),
    "ingress_stopped": ("live.ended", "live.failed"),
    "transcription_completed": (),
}
"""RTCstack's names and the canonical events they follow (contract F, B-67).

`transcription_completed` may be subscribed to, so that RTCstack's own list is accepted, but nothing sends it.
"""

TEST_EVENT = "webhook.test"
"""The ping of `TestWebhook`; nobody subscribes to it."""

ALL_EVENTS = "*"

SUBSCRIBABLE: tuple[str, ...] = (
    *CORE_EVENTS,
    *BAXSTREAM_EVENTS,
    EGRESS_ENDED,
    EGRESS_UPDATED,
    *RTCSTACK_EVENTS,
)

_MAX_PATTERNS = 100
_NAMES = frozenset(SUBSCRIBABLE)
_WILDCARDS = frozenset(
    name[:end] + ".*" for name in SUBSCRIBABLE for end in range(len(name)) if name[end] == "."
)


def rtcstack_names(canonical: str) -> tuple[str, ...]:
    """RTCstack's names for a canonical event, in the order of the catalogue."""
    return tuple(name for name, sources in RTCSTACK_EVENTS.items() if canonical in sources)


def matches(pattern: str, name: str) -> bool:
    """Whether an endpoint subscribed to `pattern` gets the event `name`.

    RTCstack's names repeat events in another shape, so only their exact name asks for them; `*` does not.
    """
    if pattern == name:
        return True
    if name in RTCSTACK_EVENTS:
        return False
    return pattern == ALL_EVENTS or (pattern.endswith(".*") and name.startswith(pattern[:-1]))


def wants(patterns: Iterable[str], name: str) -> bool:
    """Whether any of an endpoint's patterns matches."""
    return any(matches(pattern, name) for pattern in patterns)


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The subscription without repeats; none at all means every event.

    Raise ServiceError invalid_argument naming `events` for a pattern that can never match.
    """
    kept = tuple(dict.fromkeys(patterns))
    if len(kept) > _MAX_PATTERNS:
        raise invalid("events", f"must name at most {_MAX_PATTERNS} events")
    for pattern in kept:
        if pattern != ALL_EVENTS and pattern not in _NAMES and pattern not in _WILDCARDS:
            raise invalid(
                "events",
                f"{_shown(pattern)} is not an event; use an event name such as video.conversion.completed, "
                "a group such as video.*, or * for all",
            )
    return kept or (ALL_EVENTS,)


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else pattern[:60] + "…")
