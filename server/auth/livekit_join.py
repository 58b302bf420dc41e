"""A project's join token made over into LiveKit's, and LiveKit's fresh tokens back into the project's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt

from server.auth.livekit_tokens import LiveKitCaller, LiveKitPairs, TokenRefused
from server.domain.room_names import MARK, RoomNames
from server.ports.livekit import LiveKitAddress

# What a participant brings along. Nothing else is passed on: LiveKit sends participants fresh tokens of its own with the
# same grants, good for its whole API, so those must never hold more than taking part in one room.
_CLAIMS = ("name", "kind", "kindDetails", "metadata", "attributes", "sha256", "roomPreset", "roomConfig")
_GRANTS = (
    "roomJoin", "canPublish", "canSubscribe", "canPublishData", "canPublishSources", "canUpdateOwnMetadata",
    "canSubscribeMetrics", "hidden", "recorder",
)  # fmt: skip


class JoinTokens:
    """Between the tokens of projects and those of the LiveKit behind."""

    def __init__(self, pairs: LiveKitPairs, names: RoomNames) -> None:
        self._pairs = pairs
        self._names = names

    def prefix(self, caller: LiveKitCaller) -> str:
        """What LiveKit's name of the caller's room has and the caller's own has not."""
        if caller.project_id is None:
            return ""
        if caller.of_livekit:
            # We signed it ourselves, for whichever project the room is of.
            return self._names.prefix(self._names.owner(caller.video.get("room") or "").project_id)
        return self._names.prefix(caller.project_id)

    def room_egress(self, caller: LiveKitCaller) -> Mapping[str, Any] | None:
        """What the room is to have recorded of itself if this token opens it, as JSON; LiveKit is not told of it."""
        config = (caller.claims or {}).get("roomConfig")
        wanted = config.get("egress") if isinstance(config, dict) else None
        return wanted if isinstance(wanted, dict) and wanted else None

    def to_livekit(self, caller: LiveKitCaller, token: str, livekit: LiveKitAddress) -> str:
        """The token for LiveKit; empty for a call without one. Raise TokenRefused or ServiceError.

        LiveKit's own tokens stay as they are, but for what we do in its place: it knows them, and they could be used with
        it directly.
        """
        if caller.project_id is None:
            return token
        given = caller.claims or {}
        if caller.of_livekit:
            if self.room_egress(caller) is None:
                return token
            without = {**given, "roomConfig": _without_egress(given["roomConfig"])}
            return jwt.encode(without, livekit.api_secret, algorithm="HS256")
        room: str = caller.video.get("room") or ""
        if room.startswith(MARK):
            raise TokenRefused("permissions denied")
        self._check_config(caller, given.get("roomConfig"))
        claims: dict[str, Any] = {name: given[name] for name in _CLAIMS if given.get(name) is not None}
        if "roomConfig" in claims:
            claims["roomConfig"] = _without_egress(claims["roomConfig"])
        claims |= {"iss": livekit.api_key, "sub": caller.identity}
        if caller.expires_at is not None:
            claims["exp"] = caller.expires_at
        if given.get("video") is not None:
            claims["video"] = self._grants(caller, room)
            # The grant itself would let the bearer of a fresh token register as an agent worker for all projects.
            if caller.video.get("agent") is True:
                claims["kind"] = "agent"
        return jwt.encode(claims, livekit.api_secret, algorithm="HS256")

    async def from_livekit(self, caller: LiveKitCaller, token: str) -> str | None:
        """LiveKit's fresh token as one of the caller's project; None if that is no longer possible."""
        if caller.of_livekit:
            return token
        pair = await self._pairs.find(caller.key_id or "")
        livekit = await self._pairs.own()
        if pair is None or livekit is None:
            return None
        try:
            claims = jwt.decode(
                token,
                livekit.api_secret,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_nbf": False},
            )
        except jwt.InvalidTokenError:
            return None
        video = claims.get("video") or {}
        if "room" in video:
            video["room"] = video["room"].removeprefix(self.prefix(caller))
        return jwt.encode({**claims, "iss": caller.key_id}, pair.secret, algorithm="HS256")

    def _grants(self, caller: LiveKitCaller, room: str) -> dict[str, Any]:
        grants = {name: caller.video[name] for name in _GRANTS if caller.video.get(name) is not None}
        # An empty name stays one, for LiveKit to refuse.
        grants["room"] = self.prefix(caller) + room if room else ""
        return grants

    def _check_config(self, caller: LiveKitCaller, config: Mapping[str, Any] | None) -> None:
        if not isinstance(config, dict):
            return
        if config.get("agents") and self.prefix(caller):
            raise TokenRefused("agents can be dispatched by the bootstrap project only")


def _without_egress(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    return {name: value for name, value in config.items() if name != "egress"}
