"""Requests that are signed as RTCstack signs them, instead of bearing a key (contract F, B-68)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Protocol

from server.auth.livekit_tokens import Pair
from server.clock import Clock
from server.context import Caller, CallerKind, SignedRequest
from server.errors import unauthenticated

KEY_HEADER = "x-api-key"
TIMESTAMP_HEADER = "x-rtcstack-timestamp"
SIGNATURE_HEADER = "x-rtcstack-signature"
MAX_AGE_SEC = 300
_LONGEST_NUMBER = 12


class PairFinder(Protocol):
    async def find(self, api_key: str) -> Pair | None:
        """The LiveKit-style pair of that key, None if there is none."""
        ...


class RtcstackSignatures:
    """Checks `X-Api-Key`, `X-RTCstack-Timestamp` and `X-RTCstack-Signature`; the pair is a LiveKit-style one."""

    def __init__(self, pairs: PairFinder, clock: Clock) -> None:
        self._pairs = pairs
        self._clock = clock

    @staticmethod
    def used_in(headers: Mapping[str, str]) -> bool:
        """Whether the caller tries to sign; a key in `Authorization` comes first."""
        given = (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
        return "authorization" not in headers and any(name in headers for name in given)

    async def verify(self, headers: Mapping[str, str], signed: SignedRequest) -> Caller:
        """Raise ServiceError unauthenticated in RTCstack's words."""
        key = headers.get(KEY_HEADER, "")
        pair = await self._pairs.find(key) if key else None
        if pair is None:
            raise unauthenticated("Missing or invalid X-Api-Key header")
        stamp, signature = headers.get(TIMESTAMP_HEADER, ""), headers.get(SIGNATURE_HEADER, "")
        if not stamp or not signature:
            raise unauthenticated("Missing X-RTCstack-Timestamp or X-RTCstack-Signature header")
        if not self._is_recent(stamp):
            raise unauthenticated("Request timestamp too old or too far in the future (replay protection)")
        given = signature.encode("utf-8", "replace")
        matches = [
            hmac.compare_digest(given, expected) for expected in _signatures(pair.secret, signed, stamp)
        ]
        if not any(matches):
            raise unauthenticated("Invalid X-RTCstack-Signature")
        return Caller(CallerKind.LIVEKIT, pair.project_id, key)

    def _is_recent(self, stamp: str) -> bool:
        if not stamp.isascii() or not stamp.isdigit() or len(stamp) > _LONGEST_NUMBER:
            return False
        return abs(self._clock.now().timestamp() - int(stamp)) <= MAX_AGE_SEC


def _signatures(secret: str, signed: SignedRequest, stamp: str) -> Iterator[bytes]:
    """Over the body as it came; and over none, for RTCstack's own server signs an empty one whatever is sent."""
    for body in (signed.body, b""):
        digest = hashlib.sha256(body).hexdigest()
        text = f"{signed.verb}\n{signed.url}\n{stamp}\n{digest}"
        mac = hmac.new(secret.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256)
        yield f"sha256={mac.hexdigest()}".encode()
