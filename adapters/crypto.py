"""Secrets at rest: AES-256-GCM under a list of named keys, the first of which encrypts."""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.ports.secret_box import SecretsUnreadable

KEY_FILE = "secret.key"
KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = 1
_KEY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class AesGcmSecretBox:
    """Sealed form: format byte, length of the key's name, name, 96-bit nonce, ciphertext with tag.

    GCM allows 2**32 random nonces under one key; rotate by putting a new key in front of the list.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` maps names to 32 bytes, in order; the first encrypts, all decrypt."""
        if not keys:
            raise ValueError("at least one secret key is needed")
        for name, key in keys.items():
            if not _KEY_NAME.fullmatch(name):
                raise ValueError("a secret key's name must be 1 to 32 letters, digits, '.', '_' or '-'")
            if len(key) != KEY_BYTES:
                raise ValueError(
                    f"secret key {name} must be {KEY_BYTES} bytes in base64, got {len(key)} bytes"
                )
        self._ciphers = {name.encode(): AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(self._ciphers))
        self._prefix = bytes((_FORMAT, len(self._current))) + self._current

    @classmethod
    def parse(cls, text: str) -> Self:
        """`BAX_SECRET_KEYS`: `v2:BASE64,v1:BASE64`. Raise ValueError without repeating any key."""
        keys: dict[str, bytes] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, colon, encoded = item.partition(":")
            if not colon:
                raise ValueError("secret keys must look like name:base64, separated by commas")
            if name in keys:
                raise ValueError(f"secret key {name} is given twice")
            keys[name] = _decode(name, encoded)
        return cls(keys)

    def __repr__(self) -> str:
        return f"AesGcmSecretBox(keys={[name.decode() for name in self._ciphers]})"

    def seal(self, plain: bytes, *, context: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return self._prefix + nonce + self._ciphers[self._current].encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """Raise SecretsUnreadable naming the key that is missing."""
        name, start = _key_name(sealed)
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise SecretsUnreadable(f"no secret key named {name.decode(errors='replace')!r} is configured")
        nonce, body = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, context.encode())
        except (InvalidTag, ValueError) as error:
            raise SecretsUnreadable(
                f"secret key {name.decode()!r} does not open a stored secret: another key of that name, "
                "or the stored value was altered"
            ) from error

    def is_current(self, sealed: bytes) -> bool:
        return sealed.startswith(self._prefix)


def new_key_text(name: str = "v1") -> str:
    """A fresh key in the form of `BAX_SECRET_KEYS`."""
    return f"{name}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def load_or_create_keys(data_dir: Path) -> str:
    """The embedded mode's key list, generated once in the data directory, readable by its owner only."""
    path = data_dir / KEY_FILE
    data_dir.mkdir(parents=True, exist_ok=True)
    draft = data_dir / f".{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    if not path.exists():
        # Written aside and linked into place: of several processes starting at once one key wins, whole.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def _decode(name: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"secret key {name} is not base64") from None


def _key_name(sealed: bytes) -> tuple[bytes, int]:
    """Name of the key and where the nonce starts."""
    if len(sealed) < 2 or sealed[0] != _FORMAT:
        raise SecretsUnreadable("a stored secret has an unknown form")
    start = 2 + sealed[1]
    return sealed[2:start], start
