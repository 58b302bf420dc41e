"""What a receiver does with a delivery: check its signature and age, and notice repeats."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from server.clock import Clock
from server.webhooks.signing import body_signature, standard_signature

DEFAULT_TOLERANCE = timedelta(minutes=5)


class VerificationError(Exception):
    """The request did not come from the holder of the secret, or too late; answer it with 401."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A delivery that passed. `duplicate` tells that this id passed before: acknowledge it and do nothing."""

    event_id: str
    duplicate: bool


def verify_body(body: bytes, signature: str, secrets: Sequence[str]) -> bool:
    """Whether `X-BaxCloud-Signature` fits the raw body under any of the secrets, in constant time (WB-42)."""
    return _any_equal([body_signature(secret, body) for secret in secrets], [signature])


class WebhookVerifier:
    """Verifies Standard Webhooks headers and remembers the last `remember` ids that passed.

    `secrets` may hold the new and the old one during a rotation; `tolerance` bounds the age and the lead of a timestamp.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        clock: Clock,
        *,
        tolerance: timedelta = DEFAULT_TOLERANCE,
        remember: int = 10_000,
    ) -> None:
        if not secrets:
            raise ValueError("a verifier needs at least one secret")
        self._secrets = tuple(secrets)
        self._clock = clock
        self._tolerance = tolerance.total_seconds()
        self._remember = remember
        self._seen: OrderedDict[str, None] = OrderedDict()

    def verify(self, headers: Mapping[str, str], body: bytes) -> Verified:
        """Raise VerificationError for a missing header, a timestamp too far from now or a signature of nobody we know.

        `body` is the raw request body; header names may have any casing.
        """
        lowered = {name.lower(): value for name, value in headers.items()}
        try:
            event_id = lowered["webhook-id"]
            timestamp = int(lowered["webhook-timestamp"])
            signatures = lowered["webhook-signature"].split(" ")
        except KeyError as missing:
            raise VerificationError(f"header {missing.args[0]} is missing") from None
        except ValueError:
            raise VerificationError("webhook-timestamp is not a number") from None
        if abs(self._clock.now().timestamp() - timestamp) > self._tolerance:
            raise VerificationError("webhook-timestamp is too far from now")
        expected = [standard_signature(secret, event_id, timestamp, body) for secret in self._secrets]
        if not _any_equal(expected, signatures):
            raise VerificationError("no signature matches")
        return Verified(event_id, self._is_repeat(event_id))

    def _is_repeat(self, event_id: str) -> bool:
        if event_id in self._seen:
            return True
        self._seen[event_id] = None
        if len(self._seen) > self._remember:
            self._seen.popitem(last=False)
        return False


def _any_equal(expected: Sequence[str], given: Sequence[str]) -> bool:
    # Every pair is compared, so that the time taken does not tell which secret or signature came close.
    equal = [hmac.compare_digest(ours.encode(), theirs.encode()) for ours in expected for theirs in given]
    return any(equal)
