"""How LiveKit signs webhooks: a token over the digest of the body, under an API key (livekit-surface.md 8)."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime

import jwt

from server.domain.webhook import NewEvent, WebhookEndpoint

_VALID_SEC = 300


def livekit_headers(event: NewEvent, endpoint: WebhookEndpoint, *, now: datetime) -> dict[str, str]:
    """The headers of one attempt, with a token made for it; LiveKit sends the token without `Bearer`."""
    issued = int(now.timestamp())
    claims = {
        "iss": endpoint.signing_key or "",
        "iat": issued,
        "nbf": issued,
        "exp": issued + _VALID_SEC,
        "sha256": base64.b64encode(hashlib.sha256(event.body).digest()).decode(),
    }
    return {
        "Content-Type": "application/webhook+json",
        "User-Agent": "LiveKit",
        "Authorization": jwt.encode(claims, endpoint.secrets[0].value, algorithm="HS256"),
    }
