"""Checks that a webhook comes from our LiveKit and that its body is as it was sent (livekit-surface.md section 8)."""

from __future__ import annotations

import base64
import hashlib
import hmac

import jwt

from server.errors import ServiceError, unauthenticated
from server.ports.livekit import LiveKitAddress

MAX_TOKEN_CHARS = 4096
# LiveKit's own tolerance between two clocks.
LEEWAY_SEC = 60


def check_signature(authorization: str, body: bytes, livekit: LiveKitAddress) -> None:
    """`authorization` is the token as LiveKit sends it, without `Bearer`. Raise ServiceError unauthenticated.

    The answer is the same whatever is wrong, so that it tells an attacker nothing.
    """
    if not authorization or len(authorization) > MAX_TOKEN_CHARS:
        raise _refused()
    try:
        claims = jwt.decode(
            authorization,
            livekit.api_secret,
            algorithms=["HS256"],
            issuer=livekit.api_key,
            leeway=LEEWAY_SEC,
            options={"require": ["exp", "iss"], "verify_aud": False},
        )
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise _refused() from None
    signed = claims.get("sha256")
    digest = base64.b64encode(hashlib.sha256(body).digest())
    if not isinstance(signed, str) or not hmac.compare_digest(signed.encode("utf-8", "replace"), digest):
        raise _refused()


def _refused() -> ServiceError:
    return unauthenticated("this webhook is not signed by the LiveKit of this server")
