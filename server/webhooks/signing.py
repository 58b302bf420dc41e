"""Signs webhook bodies, by the seed's recipe and by Standard Webhooks, and builds the headers of one attempt."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from server.domain.webhook import NewEvent, SigningSecret
from server.webhooks.envelopes import BAXSTREAM, RTCSTACK

SECRET_PREFIX = "whsec_"  # noqa: S105 - a public prefix
BAXSTREAM_USER_AGENT = "BaxCloud-VideoConverter/1.0"
CORE_USER_AGENT = "BaxCloud-Webhooks/1.0"


def body_signature(secret: str, body: bytes) -> str:
    """`sha256=<hex>`: HMAC-SHA256 of the raw body under the secret's UTF-8 bytes (WB-42)."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard_key(secret: str) -> bytes:
    """The key bytes of Standard Webhooks.

    What follows `whsec_` is base64, as every library for that format expects, and so are the secrets we generate. A
    secret of another form, brought by the customer, is used as its own UTF-8 bytes.
    """
    raw = secret.encode()
    if not secret.startswith(SECRET_PREFIX):
        return raw
    try:
        # A bare prefix decodes to nothing, and an empty key would let anybody sign.
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True) or raw
    except ValueError:
        return raw


def standard_signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>` over `{id}.{timestamp}.{body}`; `timestamp` in Unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(standard_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def valid_secrets(secrets: Sequence[SigningSecret], now: datetime) -> tuple[str, ...]:
    """The secrets that still sign, newest first."""
    return tuple(secret.value for secret in secrets if secret.expires_at is None or secret.expires_at > now)


def delivery_headers(
    event: NewEvent, secrets: Sequence[SigningSecret], *, delivery_id: str, now: datetime
) -> dict[str, str]:
    """The headers of one attempt (WB-38 … WB-41, B-12, B-67).

    `X-BaxCloud-Signature` is made with the newest secret, `webhook-signature` with each valid one; an endpoint without
    a secret gets neither.
    """
    timestamp = int(now.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": BAXSTREAM_USER_AGENT if event.family == BAXSTREAM else CORE_USER_AGENT,
        "X-BaxCloud-Event": event.name,
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
    }
    if event.family == RTCSTACK:
        headers["X-RTCstack-Timestamp"] = str(timestamp)
        headers["X-RTCstack-Delivery"] = delivery_id
    valid = valid_secrets(secrets, now)
    if valid:
        headers["X-BaxCloud-Signature"] = body_signature(valid[0], event.body)
        headers["webhook-signature"] = " ".join(
            standard_signature(secret, event.id, timestamp, event.body) for secret in valid
        )
        if event.family == RTCSTACK:
            headers["X-RTCstack-Signature"] = body_signature(valid[0], event.body)
    return headers
