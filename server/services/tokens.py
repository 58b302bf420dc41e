"""Access tokens with which participants join a room (TK)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt

from server.ports.livekit import LiveKitAddress

DEFAULT_TTL_SEC = 21_600


@dataclass(frozen=True, slots=True)
class JoinGrants:
    """What a participant may do; the defaults are B-51's."""

    can_publish: bool = True
    can_subscribe: bool = True
    can_publish_data: bool = True
    can_update_own_metadata: bool = False

    def claims(self) -> Mapping[str, bool]:
        """All of them in LiveKit's names, false ones too: LiveKit takes an absent one for true (TK-13)."""
        return {
            "canPublish": self.can_publish,
            "canSubscribe": self.can_subscribe,
            "canPublishData": self.can_publish_data,
            "canUpdateOwnMetadata": self.can_update_own_metadata,
        }


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token to sign; `room` is the room's name in LiveKit."""

    room: str
    identity: str
    name: str
    metadata: str
    grants: JoinGrants
    issued_at: datetime
    ttl_sec: int

    @property
    def expires_at(self) -> datetime:
        return self.issued_at.replace(microsecond=0) + timedelta(seconds=self.ttl_sec)

    def sign(self, livekit: LiveKitAddress) -> str:
        claims: dict[str, object] = {
            "iss": livekit.api_key,
            "sub": self.identity,
            "nbf": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "video": {"roomJoin": True, "room": self.room, **self.grants.claims()},
        }
        if self.name:
            claims["name"] = self.name
        if self.metadata:
            claims["metadata"] = self.metadata
        return jwt.encode(claims, livekit.api_secret, algorithm="HS256")
