"""Who is in the room and what they publish, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

CAMERA, MICROPHONE = "camera", "microphone"
SCREEN_SHARE, SCREEN_SHARE_AUDIO, UNKNOWN = "screen_share", "screen_share_audio", "unknown"


@dataclass(frozen=True, slots=True)
class Publication:
    """`media` is `video` or `audio`; `codec` as in the MIME type, small; width and height are what was announced."""

    sid: str
    media: str
    source: str
    codec: str = ""
    width: int = 0
    height: int = 0
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """`kind`: `standard`, `ingress`, `egress`, `sip`, `agent`, `connector`, `bridge`. `joined_at` in ms since 1970."""

    identity: str
    name: str = ""
    kind: str = "standard"
    joined_at: int = 0
    hidden: bool = False
    publications: tuple[Publication, ...] = ()

    def published(self, media: str, *sources: str) -> tuple[Publication, ...]:
        """All of that medium, or those of the given sources."""
        return tuple(
            one for one in self.publications if one.media == media and (not sources or one.source in sources)
        )


def in_order(members: list[Member]) -> tuple[Member, ...]:
    """Those who can be recorded, first joined first; other recorders and hidden listeners are nobody."""
    seen = [one for one in members if one.kind != "egress" and not one.hidden]
    return tuple(sorted(seen, key=lambda one: (one.joined_at, one.identity)))
