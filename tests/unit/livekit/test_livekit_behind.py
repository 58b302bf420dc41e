"""Which LiveKit the settings choose, and what an embedded one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.livekit.configured import AbsentLiveKit, ConfiguredLiveKit
from adapters.livekit.embedded import EmbeddedLiveKit
from adapters.livekit.log_tail import LogTail
from adapters.livekit.ports import Ports
from adapters.livekit.server_config import Binding, config_text
from server.livekit import LiveKitBehind, livekit_behind
from server.settings import load_settings

CLOUD = {"livekit_url": "wss://x.livekit.cloud", "livekit_api_key": "k", "livekit_api_secret": "s"}


def behind(data_dir: Path, **settings: object) -> LiveKitBehind:
    box = AesGcmSecretBox.parse(new_key_text())
    return livekit_behind(load_settings(data_dir=data_dir, **settings), box, http_url="http://127.0.0.1:8080")


async def test_the_settings_choose(data_dir: Path) -> None:
    assert isinstance(behind(data_dir), EmbeddedLiveKit)
    assert isinstance(behind(data_dir, livekit_embedded=False), AbsentLiveKit)
    assert isinstance(behind(data_dir, **CLOUD), ConfiguredLiveKit)
    assert isinstance(behind(data_dir, livekit_embedded=False, **CLOUD), ConfiguredLiveKit)


async def test_the_public_address_is_the_operators(data_dir: Path) -> None:
    """Design 13: BAX_LIVEKIT_PUBLIC_URL overrides what tokens give out."""
    address = await behind(data_dir, livekit_public_url="https://rtc.example.com", **CLOUD).address()

    assert (address.url, address.public_url) == ("https://x.livekit.cloud", "wss://rtc.example.com")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"livekit_udp_ports": "many"}, "BAX_LIVEKIT_UDP_PORTS"),
        ({"livekit_public_url": "rtc.example.com", **CLOUD}, "BAX_LIVEKIT_PUBLIC_URL"),
        ({**CLOUD, "livekit_url": "x.livekit.cloud"}, "BAX_LIVEKIT_URL"),
    ],
)
def test_what_cannot_be_used_is_named(data_dir: Path, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        behind(data_dir, **settings)


@pytest.mark.parametrize(
    ("http_host", "bound", "media", "reachable"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "127.0.0.1", "[::1]"),
        ("0.0.0.0", "0.0.0.0", None, "127.0.0.1"),
        ("::", "::", None, "[::1]"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("media.example.com", "media.example.com", None, "media.example.com"),
    ],
)
def test_livekit_listens_where_we_do(http_host: str, bound: str, media: str | None, reachable: str) -> None:
    binding = Binding.of(http_host)
    config = json.loads(
        config_text(binding, Ports(7880, None, "7882"), api_key="k", webhook_url="http://h/w")
    )

    assert config["bind_addresses"] == [bound]
    assert config["rtc"].get("node_ip") == media
    assert ("ips" in config["rtc"]) == (media is not None)
    assert config["rtc"]["tcp_port"] == 0
    assert config["webhook"] == {"api_key": "k", "urls": ["http://h/w"]}
    assert "keys" not in config
    assert binding.reachable == reachable


def test_a_long_log_is_emptied_and_none_of_it_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path, ["sesame"])
    lines = 6000
    with capture_logs() as logs, path.open("a") as file:
        for number in range(lines):
            file.write(f"{number} sesame {'x' * 1000}\n")
        file.flush()
        for _ in range(100):
            tail.poll()
        emptied = path.stat().st_size
        for part in ("half", " and half\n"):
            file.write(part)
            file.flush()
            tail.poll()

    assert emptied == 0
    assert len(logs) == lines + 1
    assert "sesame" not in repr(logs)
    assert tail.last_words() == "half and half"
