"""Identifiers: random, prefixed, never guessable and never reused."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Sequence
from typing import NewType

ProjectId = NewType("ProjectId", str)
JobId = NewType("JobId", str)
EventId = NewType("EventId", str)

_LOWER = string.ascii_lowercase + string.digits
_BASE62 = string.ascii_letters + string.digits


def _random(alphabet: str, length: int) -> str:
    # Bytes past the last whole multiple of the alphabet's size would favour its first characters.
    fair = 256 - 256 % len(alphabet)
    chosen = ""
    while len(chosen) < length:
        chosen += "".join(
            [alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(length + 8) if byte < fair]
        )
    return chosen[:length]


def new_project_id() -> ProjectId:
    """`cl` + 23 characters (GN-10)."""
    return ProjectId("cl" + _random(_LOWER, 23))


def new_job_id() -> JobId:
    """`cm` + 23 characters (VC-27)."""
    return JobId("cm" + _random(_LOWER, 23))


def _derived(alphabet: str, length: int, parts: Sequence[str]) -> str:
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest())
    characters = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        characters.append(alphabet[index])
    return "".join(characters)


def derived_job_id(*parts: str) -> JobId:
    """The same id for the same parts, in the form of `new_job_id`: a repeated call finds what it has made."""
    return JobId("cm" + _derived(_LOWER, 23, parts))


def new_event_id() -> EventId:
    """`cm` + 23 characters, globally unique (WB-16)."""
    return EventId("cm" + _random(_LOWER, 23))


def new_api_key() -> str:
    """`bax_` + 40 base-62 characters, about 238 bits (GN-09)."""
    return "bax_" + _random(_BASE62, 40)


def new_id(prefix: str) -> str:
    """`{prefix}_` + 22 characters, for resources whose prefix the seeds leave open (webhooks, keys, deliveries)."""
    return f"{prefix}_{_random(_LOWER, 22)}"


def derived_id(prefix: str, *parts: str) -> str:
    """The same id for the same parts, in the form of `new_id`."""
    return f"{prefix}_{_derived(_LOWER, 22, parts)}"


def new_webhook_secret() -> str:
    """`whsec_` + 32 base-62 characters."""
    return "whsec_" + _random(_BASE62, 32)


def new_livekit_key() -> str:
    """`API` + 12 characters, LiveKit's form."""
    return "API" + _random(_BASE62, 12)


def new_livekit_secret() -> str:
    """43 base-62 characters, LiveKit's length."""
    return _random(_BASE62, 43)


# LiveKit's alphabet: nothing that looks like something else.
_BASE57 = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def new_egress_id() -> str:
    """`EG_` + 12 characters, LiveKit's form (EG-27)."""
    return "EG_" + _random(_BASE57, 12)


def new_livekit_event_id() -> str:
    """`EV_` + 12 characters, LiveKit's form."""
    return "EV_" + _random(_BASE57, 12)


def derived_egress_id(*parts: str) -> str:
    """The same id for the same parts, in the form of `new_egress_id`: a repeated call finds what it has made."""
    return "EG_" + _derived(_BASE57, 12, parts)


def new_recording_id() -> str:
    """`rec_` + 22 characters (RC-02)."""
    return new_id("rec")


def derived_recording_id(egress_id: str) -> str:
    """In the form of `new_recording_id`, for an egress whose id is derived."""
    return "rec_" + _derived(_LOWER, 22, ["recording", egress_id])
