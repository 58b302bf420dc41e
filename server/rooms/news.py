"""News of rooms: what a webhook or a look at LiveKit says has happened, before it is known whether that is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from server.domain.room import Participant, Room, Track


class NewsKind(str, Enum):
    """The core events that they become (E.4)."""

    ROOM_STARTED = "room.started"
    ROOM_FINISHED = "room.finished"
    JOINED = "participant.joined"
    LEFT = "participant.left"
    PUBLISHED = "track.published"
    UNPUBLISHED = "track.unpublished"


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened at `at`, as LiveKit tells it.

    `room` holds at least sid and LiveKit's name. JOINED and LEFT carry `participant`; PUBLISHED and UNPUBLISHED carry
    `track` and the sid of whose it is. `noticed`: nobody told us, we saw it. `reason` is LiveKit's for LEFT, or empty.
    """

    kind: NewsKind
    room: Room
    at: datetime
    participant: Participant | None = None
    participant_sid: str = ""
    track: Track | None = None
    noticed: bool = False
    reason: str = ""

    @property
    def subject(self) -> str:
        """The sid of what it happened to."""
        if self.track is not None:
            return self.track.sid
        return self.participant.sid if self.participant is not None else self.room.sid
