"""The receiver's side: replays, old deliveries, wrong secrets, rotation (encoding-and-safety 2.8 case 28)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.domain.webhook import SigningSecret
from server.ids import ProjectId
from server.webhooks.envelopes import baxstream_event
from server.webhooks.signing import delivery_headers
from server.webhooks.verification import VerificationError, WebhookVerifier, verify_body

NOW = datetime(2026, 4, 17, 10, 0, 0, tzinfo=UTC)
EVENT = baxstream_event(
    "moderation.failed", project_id=ProjectId("cl1"), subject="cm1", data={}, metadata=None, now=NOW
)


class FixedClock:
    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


def signed(*secrets: str, at: datetime = NOW) -> dict[str, str]:
    return delivery_headers(EVENT, [SigningSecret(s) for s in secrets], delivery_id="whd_1", now=at)


def verifier(*secrets: str) -> WebhookVerifier:
    return WebhookVerifier(secrets, FixedClock(NOW))


def test_the_same_id_twice_is_flagged() -> None:
    """Case 28; WB-49: the receiver notices a repeat by its id, also with a fresh signature."""
    receiver = verifier("s")
    assert receiver.verify(signed("s"), EVENT.body).duplicate is False
    again = receiver.verify(signed("s", at=NOW + timedelta(minutes=1)), EVENT.body)
    assert again.duplicate is True
    assert again.event_id == EVENT.id


@pytest.mark.parametrize("away", [timedelta(minutes=-10), timedelta(minutes=10)])
def test_a_timestamp_ten_minutes_off_is_refused(away: timedelta) -> None:
    with pytest.raises(VerificationError, match="too far"):
        verifier("s").verify(signed("s", at=NOW + away), EVENT.body)


def test_a_wrong_secret_is_refused() -> None:
    """WB-50."""
    with pytest.raises(VerificationError, match="no signature"):
        verifier("other").verify(signed("s"), EVENT.body)
    assert not verify_body(EVENT.body, signed("s")["X-BaxCloud-Signature"], ["other"])


def test_both_secrets_of_a_rotation_pass() -> None:
    headers = signed("new", "old")
    assert not verifier("new").verify(headers, EVENT.body).duplicate
    assert not verifier("old").verify(headers, EVENT.body).duplicate
    assert not verifier("new", "old").verify(signed("old"), EVENT.body).duplicate


def test_a_changed_body_or_id_is_refused() -> None:
    with pytest.raises(VerificationError):
        verifier("s").verify(signed("s"), EVENT.body + b" ")
    with pytest.raises(VerificationError):
        verifier("s").verify({**signed("s"), "webhook-id": "cm_other"}, EVENT.body)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_missing_headers_are_refused(missing: str) -> None:
    headers = signed("s")
    del headers[missing]
    with pytest.raises(VerificationError, match=missing):
        verifier("s").verify(headers, EVENT.body)


def test_odd_headers_are_refused_or_read_in_any_casing() -> None:
    with pytest.raises(VerificationError, match="not a number"):
        verifier("s").verify({**signed("s"), "webhook-timestamp": "soon"}, EVENT.body)
    with pytest.raises(VerificationError):
        verifier("s").verify({**signed("s"), "webhook-signature": "v1,ü v2,x "}, EVENT.body)
    upper = {name.upper(): value for name, value in signed("s").items()}
    assert verifier("s").verify(upper, EVENT.body).event_id == EVENT.id


def test_a_refused_delivery_does_not_mark_its_id_as_seen() -> None:
    receiver = verifier("s")
    with pytest.raises(VerificationError):
        receiver.verify(signed("other"), EVENT.body)
    assert receiver.verify(signed("s"), EVENT.body).duplicate is False


def test_memory_of_ids_is_bounded() -> None:
    receiver = WebhookVerifier(("s",), FixedClock(NOW), remember=1)
    receiver.verify(signed("s"), EVENT.body)
    other = baxstream_event(
        "moderation.failed", project_id=ProjectId("cl1"), subject="cm2", data={}, metadata=None, now=NOW
    )
    headers = delivery_headers(other, [SigningSecret("s")], delivery_id="whd_2", now=NOW)
    receiver.verify(headers, other.body)
    assert receiver.verify(signed("s"), EVENT.body).duplicate is False


def test_a_verifier_without_secrets_is_a_mistake() -> None:
    """B-13: an unset secret must not pass everything."""
    with pytest.raises(ValueError, match="at least one secret"):
        WebhookVerifier((), FixedClock(NOW))
