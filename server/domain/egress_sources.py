"""What an egress takes in (livekit-surface section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class RoomSource:
    """A composition of the whole room. `layout` is what it starts with; `base_url` a template page of the user's.

    `audio_mixing`: `default`, `dual_channel_agent`, `dual_channel_alternate` (audio-only compositions).
    """

    KIND: ClassVar[str] = "room"
    layout: str = "grid"
    audio_only: bool = False
    video_only: bool = False
    base_url: str = ""
    audio_mixing: str = "default"


@dataclass(frozen=True, slots=True)
class ParticipantSource:
    """One participant: camera and microphone, or with `screen_share` everything else they publish."""

    KIND: ClassVar[str] = "participant"
    identity: str
    screen_share: bool = False


@dataclass(frozen=True, slots=True)
class TrackCompositeSource:
    """At most one audio and one video track, by sid, of whichever participants."""

    KIND: ClassVar[str] = "track_composite"
    audio_track_id: str = ""
    video_track_id: str = ""


@dataclass(frozen=True, slots=True)
class TrackSource:
    """One track as it came, without transcoding."""

    KIND: ClassVar[str] = "track"
    track_id: str


@dataclass(frozen=True, slots=True)
class RoomTracksSource:
    """Every track of the room as it came (`tracks` mode)."""

    KIND: ClassVar[str] = "room_tracks"


@dataclass(frozen=True, slots=True)
class AudioRoute:
    """Which audio goes to which side. Exactly one of the first three is set; `channel` is `both`, `left` or `right`."""

    track_id: str = ""
    participant_identity: str = ""
    participant_kind: str = ""
    channel: str = "both"


@dataclass(frozen=True, slots=True)
class MediaSource:
    """StartEgress's free choice of one picture and any sound."""

    KIND: ClassVar[str] = "media"
    video_track_id: str = ""
    video_identity: str = ""
    screen_share: bool = False
    capture_all_audio: bool = False
    routes: tuple[AudioRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class WebSource:
    """Any page, in a browser."""

    KIND: ClassVar[str] = "web"
    url: str
    audio_only: bool = False
    video_only: bool = False
    await_start_signal: bool = False


Source = (
    RoomSource
    | ParticipantSource
    | TrackCompositeSource
    | TrackSource
    | RoomTracksSource
    | MediaSource
    | WebSource
)
