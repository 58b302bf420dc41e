"""LiveKit's access tokens as projects sign them: which pair, whose project, what they grant (livekit-surface.md 1.2, 10)."""

from __future__ import annotations

import binascii
import json
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from server.clock import Clock
from server.context import Caller, CallerKind
from server.errors import Code, ServiceError
from server.ids import ProjectId
from server.ports.livekit import LiveKitAddress, LiveKitSource
from server.ports.unit_of_work import Database

LEEWAY_SEC = 60.0
# A pair revoked in another process works at most this much longer, like an API key (design section 13).
CACHED_FOR_SEC = 5.0
_CACHED_PAIRS = 10_000
_CACHED_TOKENS = 4096
_LONGEST_CACHED = 4096
_FLAGS = (
    "roomCreate", "roomList", "roomRecord", "roomAdmin", "roomJoin", "ingressAdmin", "canPublish", "canSubscribe",
    "canPublishData", "canUpdateOwnMetadata", "canSubscribeMetrics", "hidden", "recorder", "agent",
)  # fmt: skip
_TEXTS = ("room", "destinationRoom")


class TokenRefused(ServiceError):
    """401 in LiveKit's words, which its HTTP side answers as plain text; the token itself is never repeated."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.UNAUTHENTICATED, message)


@dataclass(frozen=True, slots=True)
class LiveKitCaller(Caller):
    """Who signed a token, and what it says. `claims` is None for a call without any token.

    `of_livekit` tells that the pair is LiveKit's own, so that LiveKit takes the token as it is.
    """

    claims: Mapping[str, Any] | None = field(default=None, repr=False)
    expires_at: float | None = None
    of_livekit: bool = False

    @property
    def video(self) -> Mapping[str, Any]:
        """The `video` claim: grants about rooms."""
        return (self.claims or {}).get("video") or {}

    @property
    def sip(self) -> Mapping[str, Any]:
        return (self.claims or {}).get("sip") or {}

    @property
    def identity(self) -> str:
        claims = self.claims or {}
        return claims.get("sub") or claims.get("jti") or ""


NOBODY = LiveKitCaller(CallerKind.LIVEKIT, None)


@dataclass(frozen=True, slots=True)
class Pair:
    """A key's project and secret."""

    project_id: ProjectId
    secret: str = field(repr=False)
    of_livekit: bool = False


class LiveKitPairs:
    """Finds pairs: LiveKit's own, which is the bootstrap project's, then those that projects were issued."""

    def __init__(
        self,
        database: Database,
        livekit: LiveKitSource,
        bootstrap_project_id: ProjectId,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._livekit = livekit
        self._bootstrap_project_id = bootstrap_project_id
        self._monotonic = monotonic
        self._cached: dict[str, tuple[Pair, float]] = {}
        # Counts revocations, so that a look-up that began before one does not cache what it found.
        self._revocations = 0

    async def find(self, api_key: str) -> Pair | None:
        """The pair of that key, None if there is none or it is revoked."""
        own = await self.own()
        if own is not None and own.api_key == api_key:
            return Pair(self._bootstrap_project_id, own.api_secret, of_livekit=True)
        now = self._monotonic()
        cached = self._cached.get(api_key)
        if cached is not None and cached[1] > now:
            return cached[0]
        return await self._look_up(api_key, now)

    async def own(self) -> LiveKitAddress | None:
        """LiveKit's own pair, None while there is no LiveKit."""
        try:
            return await self._livekit.address()
        except ServiceError:
            return None

    def forget(self, api_key: str) -> None:
        """Stop accepting a pair in this process at once; call it after a revocation is committed."""
        self._revocations += 1
        self._cached.pop(api_key, None)

    async def _look_up(self, api_key: str, now: float) -> Pair | None:
        revocations = self._revocations
        async with self._database.read() as unit:
            key = await unit.keys.find_livekit_key(api_key)
        if key is None:
            self._cached.pop(api_key, None)
            return None
        pair = Pair(key.project_id, key.api_secret)
        if revocations == self._revocations:
            if len(self._cached) >= _CACHED_PAIRS:
                self._cached.clear()
            self._cached[api_key] = (pair, now + CACHED_FOR_SEC)
        return pair


@dataclass(frozen=True, slots=True)
class _Checked:
    """A token whose signature is good under `secret`."""

    caller: LiveKitCaller
    secret: str = field(repr=False)
    not_before: float | None


class LiveKitTokens:
    """Verifies tokens; a signature is checked once, the pair and the times at every use."""

    def __init__(self, pairs: LiveKitPairs, clock: Clock) -> None:
        self._pairs = pairs
        self._clock = clock
        self._checked: OrderedDict[str, _Checked] = OrderedDict()

    async def verify(self, token: str) -> LiveKitCaller:
        """Raise TokenRefused in LiveKit's order: not a token, unknown key, bad signature or times."""
        if not token:
            return NOBODY
        known = self._checked.get(token)
        claims = known.caller.claims or {} if known is not None else _unverified(token)
        issuer = claims.get("iss")
        pair = await self._pairs.find(issuer) if isinstance(issuer, str) and issuer else None
        if pair is None:
            raise TokenRefused("invalid API key")
        if known is None or known.secret != pair.secret:
            known = _verified(token, pair)
            # Those with much metadata are rare, and checked again each time.
            if len(token) <= _LONGEST_CACHED:
                self._checked[token] = known
            while len(self._checked) > _CACHED_TOKENS:
                self._checked.popitem(last=False)
        self._check_times(known)
        return known.caller

    def _check_times(self, token: _Checked) -> None:
        now = self._clock.now().timestamp()
        expires = token.caller.expires_at
        if expires is not None and now >= expires + LEEWAY_SEC:
            raise TokenRefused("invalid token: token is expired")
        if token.not_before is not None and now < token.not_before - LEEWAY_SEC:
            raise TokenRefused("invalid token: token is not valid yet")


def bearer(headers: Mapping[str, str], access_token: str = "") -> str:
    """The token of a call, empty if it has none; a query parameter counts only without the header (1.2)."""
    # Blanks at the end of a header are none of its value (RFC 9110 section 5.5).
    given = headers.get("authorization", "").strip(" \t")
    if not given:
        return access_token
    if not given.startswith("Bearer "):
        raise TokenRefused("invalid authorization header. Must start with Bearer ")
    return given.removeprefix("Bearer ")


def _unverified(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    try:
        if len(parts) != 3:
            raise ValueError
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        if not isinstance(claims, dict):
            raise TypeError
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise TokenRefused("invalid authorization token") from None
    return claims


_UNCHECKED = {
    f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}  # times by our clock, the rest like LiveKit: not at all


def _verified(token: str, pair: Pair) -> _Checked:
    try:
        claims = jwt.decode(token, pair.secret, algorithms=["HS256"], options=_UNCHECKED)  # type: ignore[arg-type]
    except (jwt.InvalidTokenError, RecursionError):
        raise TokenRefused("invalid token: its signature is not valid") from None
    _check_types(claims)
    caller = LiveKitCaller(
        CallerKind.LIVEKIT,
        pair.project_id,
        claims["iss"],
        claims=claims,
        expires_at=claims.get("exp"),
        of_livekit=pair.of_livekit,
    )
    return _Checked(caller, pair.secret, claims.get("nbf"))


def _check_types(claims: Mapping[str, Any]) -> None:
    """LiveKit reads claims into typed fields, so that one of another type spoils the token."""
    times = (claims.get("exp"), claims.get("nbf"))
    good = all(
        one is None or (isinstance(one, (int, float)) and not isinstance(one, bool)) for one in times
    ) and all(
        isinstance(claims.get(name, ""), str) for name in ("iss", "sub", "jti", "kind", "name", "metadata")
    )
    for name, flags, texts in (("video", _FLAGS, _TEXTS), ("sip", ("admin", "call"), ())):
        grant = claims.get(name)
        good = good and (
            grant is None
            or (
                isinstance(grant, dict)
                and all(grant.get(flag) in (None, True, False) for flag in flags)
                and all(isinstance(grant.get(text) or "", str) for text in texts)
            )
        )
    if not good:
        raise TokenRefused("invalid token: its claims have the wrong types")
