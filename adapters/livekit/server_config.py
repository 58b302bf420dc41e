"""The configuration of the embedded livekit-server, and the key pair it shares with us."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.livekit.ports import Ports
from server.ports.secret_box import SecretBox, SecretsUnreadable

KEY_FILE = "livekit.keys"
_CONTEXT = "livekit.keys|1|pair"
_KEY_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class KeyPair:
    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """Where LiveKit listens, derived from the address that our own HTTP binds to."""

    host: str

    @classmethod
    def of(cls, http_host: str) -> Binding:
        return cls({"localhost": "127.0.0.1", "": "0.0.0.0"}.get(http_host, http_host))

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_loopback(self) -> bool:
        return self.ip is not None and self.ip.is_loopback

    @property
    def media_host(self) -> str:
        """Where media sockets are opened: on loopback always on its IPv4 address."""
        return "127.0.0.1" if self.is_loopback else self.host

    @property
    def reachable(self) -> str:
        """An address for clients on this machine, ready for a URL."""
        ip = self.ip
        if ip is None:
            return self.host
        if ip.is_unspecified:
            return "127.0.0.1" if ip.version == 4 else "[::1]"
        return f"[{ip}]" if ip.version == 6 else str(ip)


def config_text(binding: Binding, ports: Ports, *, api_key: str, webhook_url: str | None) -> str:
    """LiveKit's configuration as JSON, which is YAML. Keys are not in it: they go through the environment."""
    config: dict[str, Any] = {
        "port": ports.signal,
        "bind_addresses": [binding.host],
        "rtc": {"udp_port": ports.udp, "tcp_port": ports.tcp or 0, "use_external_ip": False}
        | _media_address(binding),
        "room": {"auto_create": True},
        "logging": {"level": "warn", "json": True},
    }
    if webhook_url is not None:
        config["webhook"] = {"api_key": api_key, "urls": [webhook_url]}
    return json.dumps(config, indent=2) + "\n"


def keys_variable(pairs: Mapping[str, str]) -> str:
    """`LIVEKIT_KEYS`, which LiveKit reads as YAML."""
    return json.dumps(dict(pairs))


def fingerprint(pair: KeyPair, *parts: str) -> str:
    """Tells whether a running server was started with the same settings and keys; useless without our secret."""
    return hmac.new(pair.api_secret.encode(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def load_pair(folder: Path, box: SecretBox) -> KeyPair | None:
    """The stored pair, or None. Raise SecretsUnreadable."""
    try:
        sealed = (folder / KEY_FILE).read_bytes()
    except FileNotFoundError:
        return None
    stored = json.loads(box.open(sealed, context=_CONTEXT))
    return KeyPair(stored["api_key"], stored["api_secret"])


def load_or_make_pair(folder: Path, box: SecretBox) -> KeyPair:
    """The stored pair; made if there is none, or none that our secret keys open. Sealed anew under a new key."""
    path = folder / KEY_FILE
    try:
        pair = load_pair(folder, box)
    except SecretsUnreadable:
        # Nobody but the server that we start knows this pair, so a lost one is replaced, and the server with it.
        pair = None
    if pair is None or not box.is_current(path.read_bytes()):
        pair = pair or _new_pair()
        stored = json.dumps({"api_key": pair.api_key, "api_secret": pair.api_secret})
        write_private(path, box.seal(stored.encode(), context=_CONTEXT))
    return pair


def _new_pair() -> KeyPair:
    # livekit-surface.md section 9; the secret has LiveKit's own form.
    return KeyPair(
        "API" + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(12)), secrets.token_urlsafe(36)
    )


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def _media_address(binding: Binding) -> dict[str, Any]:
    ip = binding.ip
    if ip is None or ip.is_unspecified:
        return {"enable_loopback_candidate": False}
    media = ipaddress.ip_address(binding.media_host)
    return {
        "node_ip": str(media),
        "enable_loopback_candidate": ip.is_loopback,
        # Media sockets are opened on every address unless they are filtered.
        "ips": {"includes": [f"{media}/{media.max_prefixlen}"]},
    }
