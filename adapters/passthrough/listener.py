"""Who is in a room and what they publish, and who is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from adapters.passthrough.media import Frame
from adapters.passthrough.stream import Stream

if TYPE_CHECKING:
    from livekit.protocol.models import TrackInfo


@dataclass(frozen=True, slots=True)
class Participant:
    sid: str
    identity: str
    name: str
    kind: str
    joined_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Track:
    """`kind` is `audio` or `video`, `source` as in `{track_source}` (livekit-surface 3.1), `codec` as `video/h264`."""

    sid: str
    identity: str
    name: str
    kind: str
    source: str
    codec: str
    width: int
    height: int
    muted: bool


class Listener(Protocol):
    """What a recording does with a room. Moments are ns since 1970."""

    def joined(self, room_id: str, at_ns: int) -> None:
        """Also after each renewal of the connection; what is there is told before."""
        ...

    def interrupted(self, at_ns: int) -> None: ...
    def arrived(self, participant: Participant, at_ns: int) -> None: ...
    def left(self, participant: Participant, at_ns: int) -> None: ...

    def published(self, track: Track, at_ns: int) -> bool:
        """Whether its media is wanted."""
        ...

    def changed(self, track: Track, at_ns: int) -> None: ...
    def unpublished(self, track: Track, at_ns: int) -> None: ...

    def speaking(self, levels: Mapping[str, float], at_ns: int) -> None:
        """Who is heard: level (0–1) by identity."""
        ...

    def frame(self, stream: Stream, frame: Frame) -> None: ...


def track_of(identity: str, info: TrackInfo) -> Track:
    from livekit.protocol.models import TrackSource, TrackType

    return Track(
        sid=info.sid,
        identity=identity,
        name=info.name,
        kind={TrackType.AUDIO: "audio", TrackType.VIDEO: "video"}.get(info.type, ""),
        source=TrackSource.Name(info.source).lower(),
        codec=info.mime_type.lower(),
        width=info.width,
        height=info.height,
        muted=info.muted,
    )
