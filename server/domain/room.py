"""Rooms, participants and tracks: as LiveKit shows them now, and what is remembered of them to announce changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from server.ids import ProjectId


class ParticipantKind(str, Enum):
    """LiveKit's kinds, as its tokens and webhooks spell them in capitals."""

    STANDARD = "STANDARD"
    INGRESS = "INGRESS"
    EGRESS = "EGRESS"
    SIP = "SIP"
    AGENT = "AGENT"
    CONNECTOR = "CONNECTOR"
    BRIDGE = "BRIDGE"


_MACHINES = frozenset({ParticipantKind.EGRESS, ParticipantKind.INGRESS, ParticipantKind.AGENT})


class ParticipantState(str, Enum):
    """Where a connection stands; a participant is announced once it is ACTIVE."""

    JOINING = "JOINING"
    JOINED = "JOINED"
    ACTIVE = "ACTIVE"
    DISCONNECTED = "DISCONNECTED"


@dataclass(frozen=True, slots=True)
class Track:
    """A published track; `type` and `source` are LiveKit's names, e.g. `VIDEO` and `SCREEN_SHARE`."""

    sid: str
    type: str
    source: str
    name: str = ""
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Participant:
    """One connection to a room. `sid` is of the connection, `identity` of whoever made it."""

    sid: str
    identity: str
    name: str
    state: ParticipantState
    kind: ParticipantKind
    joined_at: datetime | None
    hidden: bool = False
    recorder: bool = False
    metadata: str = ""
    is_publisher: bool = False
    tracks: tuple[Track, ...] = ()

    @property
    def is_person(self) -> bool:
        """False for what records, streams or computes (E.4), and for whoever nobody in the room can see."""
        return self.kind not in _MACHINES and not self.hidden and not self.recorder

    @property
    def is_recorder(self) -> bool:
        return self.kind is ParticipantKind.EGRESS or self.recorder


@dataclass(frozen=True, slots=True)
class Room:
    """A room that is open. `name` is LiveKit's (see `RoomNames`), `sid` of this session of it."""

    sid: str
    name: str
    created_at: datetime | None
    max_participants: int = 0
    empty_timeout: int = 0
    metadata: str = ""
    active_recording: bool = False


@dataclass(frozen=True, slots=True)
class RoomSession:
    """What is remembered of a room. Ended ones are kept for a day, so that late news of them change nothing."""

    sid: str
    project_id: ProjectId
    name: str
    started_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """What is remembered of one participant's connection to a room."""

    sid: str
    room_sid: str
    identity: str
    name: str
    person: bool
    joined_at: datetime
    left_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """What is remembered of a track. It is announced only after its participant, however the news arrived."""

    sid: str
    room_sid: str
    participant_sid: str
    type: str
    source: str
    name: str
    announced: bool = False
    unpublished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RoomMemory:
    """Rows by sid."""

    rooms: Mapping[str, RoomSession] = field(default_factory=dict)
    visits: Mapping[str, Visit] = field(default_factory=dict)
    publications: Mapping[str, Publication] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """A session that has not ended, with how many connections of people are in it."""

    session: RoomSession
    people: int


@dataclass(frozen=True, slots=True)
class RoomScope:
    """Which remembered rows to look up, by sid.

    With `visits` come their publications that are not over; with `finishing` rooms everything in them that is not.
    """

    rooms: frozenset[str]
    visits: frozenset[str] = frozenset()
    publications: frozenset[str] = frozenset()
    finishing: frozenset[str] = frozenset()
