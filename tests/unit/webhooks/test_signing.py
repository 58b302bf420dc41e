"""Signatures and headers, against openssl and the published vector of Standard Webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.webhook import NewEvent, SigningSecret
from server.ids import ProjectId, new_webhook_secret
from server.webhooks.envelopes import baxstream_event, core_event, rtcstack_event
from server.webhooks.signing import (
    body_signature,
    delivery_headers,
    standard_key,
    standard_signature,
    valid_secrets,
)
from server.webhooks.verification import verify_body

NOW = datetime(2026, 4, 17, 10, 0, 0, 250_000, tzinfo=UTC)
PROJECT = ProjectId("cl_proj_abc123")


def baxstream() -> NewEvent:
    return baxstream_event(
        "video.conversion.started", project_id=PROJECT, subject="cm1", data={"é": "ü"}, metadata=None, now=NOW
    )


def test_published_vector_of_standard_webhooks() -> None:
    """style-anchors 21: the vector that the specification's reference libraries share."""
    signature = standard_signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("secret", ["s3cret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "pässwörd"])
def test_seed_recipe_with_openssl(secret: str) -> None:
    """WB-42, WB-43: `openssl dgst -sha256 -hmac "$SECRET"` over the raw bytes gives the header."""
    body = baxstream().body
    printed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", secret, "-hex"], input=body, capture_output=True, check=True
    ).stdout.decode()
    assert body_signature(secret, body) == "sha256=" + printed.split()[-1]


def test_rfc_4231_vector() -> None:
    """RFC 4231 test case 2."""
    assert body_signature("Jefe", b"what do ya want for nothing?") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_generated_secrets_work_with_stock_libraries() -> None:
    """Standard Webhooks libraries base64-decode what follows `whsec_`; ours decode to 24 bytes."""
    for _ in range(50):
        secret = new_webhook_secret()
        assert standard_key(secret) == base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        assert len(standard_key(secret)) == 24


@pytest.mark.parametrize(
    "secret", ["my secret", "whsec_not base64!", "whsec_abc", "whsec_", "MfKQ9r8GKYqrTwjU"]
)
def test_other_secrets_are_their_own_bytes(secret: str) -> None:
    assert standard_key(secret) == secret.encode()


def test_headers_of_a_baxstream_event() -> None:
    """WB-38, WB-39, WB-40, WB-41, WB-51."""
    event = baxstream()
    headers = delivery_headers(event, (SigningSecret("s3cret"),), delivery_id="whd_1", now=NOW)
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "BaxCloud-VideoConverter/1.0"
    assert headers["X-BaxCloud-Event"] == "video.conversion.started"
    assert re.fullmatch(r"sha256=[0-9a-f]{64}", headers["X-BaxCloud-Signature"])
    assert verify_body(event.body, headers["X-BaxCloud-Signature"], ["s3cret"])
    assert headers["webhook-id"] == event.id
    assert headers["webhook-timestamp"] == "1776420000"
    assert headers["webhook-signature"] == standard_signature("s3cret", event.id, 1776420000, event.body)
    assert not any(name.startswith("X-RTCstack") for name in headers)


def test_headers_of_a_core_event() -> None:
    """B-12: the same scheme, another User-Agent."""
    event = core_event("room.started", project_id=PROJECT, subject="r", data={"roomName": "r"}, now=NOW)
    headers = delivery_headers(event, (SigningSecret("s3cret"),), delivery_id="whd_1", now=NOW)
    assert headers["User-Agent"] == "BaxCloud-Webhooks/1.0"
    assert verify_body(event.body, headers["X-BaxCloud-Signature"], ["s3cret"])


def test_headers_of_an_rtcstack_event() -> None:
    """B-67: RTCstack's three headers beside ours."""
    event = rtcstack_event(
        "egress_ended", project_id=PROJECT, subject="EG_1", fields={"egressId": "EG_1"}, now=NOW
    )
    headers = delivery_headers(event, (SigningSecret("s3cret"),), delivery_id="whd_1", now=NOW)
    digest = hmac.new(b"s3cret", event.body, hashlib.sha256).hexdigest()
    assert headers["X-RTCstack-Signature"] == f"sha256={digest}"
    assert headers["X-RTCstack-Timestamp"] == "1776420000"
    assert headers["X-RTCstack-Delivery"] == "whd_1"
    assert headers["X-BaxCloud-Signature"] == headers["X-RTCstack-Signature"]


def test_without_a_secret_nothing_is_signed() -> None:
    """WB-41."""
    event = rtcstack_event("egress_ended", project_id=PROJECT, subject="EG_1", fields={}, now=NOW)
    headers = delivery_headers(event, (), delivery_id="whd_1", now=NOW)
    assert not any("signature" in name.lower() for name in headers)


def test_rotation_signs_with_each_valid_secret_and_the_seed_header_with_the_newest() -> None:
    """Design section 13: one Standard Webhooks signature per valid secret."""
    event = baxstream()
    secrets = (
        SigningSecret("new"),
        SigningSecret("old", NOW + timedelta(seconds=1)),
        SigningSecret("older", NOW),
    )
    headers = delivery_headers(event, secrets, delivery_id="whd_1", now=NOW)
    assert valid_secrets(secrets, NOW) == ("new", "old")
    assert headers["webhook-signature"].split(" ") == [
        standard_signature(secret, event.id, 1776420000, event.body) for secret in ("new", "old")
    ]
    assert verify_body(event.body, headers["X-BaxCloud-Signature"], ["new"])
    assert not verify_body(event.body, headers["X-BaxCloud-Signature"], ["old"])


def test_a_later_attempt_is_signed_afresh_over_the_same_bytes() -> None:
    """B-16 as design section 13 rules: the seed's signature repeats, the dated one does not."""
    event = baxstream()
    first = delivery_headers(event, (SigningSecret("s"),), delivery_id="whd_1", now=NOW)
    later = delivery_headers(event, (SigningSecret("s"),), delivery_id="whd_1", now=NOW + timedelta(hours=1))
    assert first["X-BaxCloud-Signature"] == later["X-BaxCloud-Signature"]
    assert first["webhook-id"] == later["webhook-id"]
    assert first["webhook-timestamp"] != later["webhook-timestamp"]
    assert first["webhook-signature"] != later["webhook-signature"]


def test_secrets_stay_out_of_repr() -> None:
    assert "hush" not in repr(SigningSecret("hush"))


@given(body=st.binary(max_size=200), secret=st.text(min_size=1, max_size=40), flipped=st.integers(0, 10_000))
def test_any_changed_bit_breaks_the_signature(body: bytes, secret: str, flipped: int) -> None:
    """WB-43."""
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    signature = body_signature(secret, body)
    assert verify_body(body, signature, [secret])
    if body:
        changed = bytearray(body)
        changed[flipped % len(body)] ^= 1 << (flipped % 8)
        assert not verify_body(bytes(changed), signature, [secret])
    assert not verify_body(body + b" ", signature, [secret])


def test_wire_bytes_are_what_is_signed() -> None:
    """WB-43: a re-serialised body need not verify."""
    event = replace(baxstream(), body=b'{"a": 1}')
    headers = delivery_headers(event, (SigningSecret("s"),), delivery_id="whd_1", now=NOW)
    assert verify_body(b'{"a": 1}', headers["X-BaxCloud-Signature"], ["s"])
    assert not verify_body(b'{"a":1}', headers["X-BaxCloud-Signature"], ["s"])
