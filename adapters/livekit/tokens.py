"""Access tokens for our own calls to LiveKit, signed once and used until they grow old."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping

import jwt

from server.clock import Clock
from server.ports.livekit import LiveKitAddress

TTL_SEC = 600
RENEW_SEC = 300
_KEPT = 512


class TokenSigner:
    """Signs for exactly the grants asked for (livekit-surface.md section 10).

    `nbf` is left out and tokens are renewed at half their life, so that clocks may be minutes apart.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: OrderedDict[tuple[str, str, str, str], tuple[str, float]] = OrderedDict()

    def token(
        self,
        address: LiveKitAddress,
        grants: Mapping[str, object],
        *,
        identity: str = "",
        sip: Mapping[str, object] | None = None,
    ) -> str:
        """`grants` becomes the `video` claim as it is, `sip` the one of that name; `identity` is needed to join."""
        now = self._clock.now().timestamp()
        known = (address.api_key, address.api_secret, identity, json.dumps([grants, sip], sort_keys=True))
        cached = self._tokens.get(known)
        if cached is not None and now < cached[1] <= now + RENEW_SEC:
            self._tokens.move_to_end(known)
            return cached[0]
        claims = {"iss": address.api_key, "exp": int(now) + TTL_SEC, "video": dict(grants)}
        if sip:
            claims["sip"] = dict(sip)
        if identity:
            claims["sub"] = identity
        signed = jwt.encode(claims, address.api_secret, algorithm="HS256")
        self._tokens[known] = (signed, now + RENEW_SEC)
        self._tokens.move_to_end(known)
        while len(self._tokens) > _KEPT:
            self._tokens.popitem(last=False)
        return signed
