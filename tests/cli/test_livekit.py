"""`bax livekit status` and the rows of `bax doctor` about LiveKit."""

from __future__ import annotations

import json

from tests.cli.conftest import Bax
from tests.servers.livekit import API_KEY, API_SECRET, LiveKitServer


def configured(livekit: LiveKitServer, secret: str = API_SECRET) -> dict[str, str]:
    return {
        "livekit_url": livekit.address.public_url,
        "livekit_api_key": API_KEY,
        "livekit_api_secret": secret,
    }


def test_the_embedded_one_without_a_server_of_ours(bax: Bax) -> None:
    done = bax("livekit", "status", "--json")

    shown = json.loads(done.stdout)
    assert done.returncode == 1
    assert shown["embedded"] is True
    assert shown["address"] is None
    assert shown["problem"]


def test_a_configured_one_is_joined(bax: Bax, livekit: LiveKitServer) -> None:
    """LK: which, its version, and whether media ports answer."""
    done = bax("livekit", "status", "--json", **configured(livekit))

    shown = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (shown["embedded"], shown["address"]) == (False, livekit.address.url)
    assert shown["version"] == "1.13.5"
    assert shown["media"].startswith("udp 127.0.0.1:")
    assert API_SECRET not in done.stdout + done.stderr


def test_doctor_shows_it(bax: Bax, livekit: LiveKitServer) -> None:
    checks = {
        check["name"]: check
        for check in json.loads(bax("doctor", "--json", **configured(livekit)).stdout)["checks"]
    }

    assert "configured" in checks["livekit"]["detail"]
    assert livekit.address.url in checks["livekit"]["detail"]
    assert checks["livekit media"]["ok"]


def test_a_refused_key_is_told_without_it(bax: Bax, livekit: LiveKitServer) -> None:
    secret = "another-secret-0123456789-0123456789"
    done = bax("livekit", "status", **configured(livekit, secret))

    assert done.returncode == 1
    assert "refused our key" in done.stdout
    assert secret not in done.stdout + done.stderr


def test_settings_that_cannot_be_used_are_named(bax: Bax) -> None:
    done = bax("livekit", "status", livekit_udp_ports="many")

    assert done.returncode == 1
    assert "BAX_LIVEKIT_UDP_PORTS" in done.stdout
