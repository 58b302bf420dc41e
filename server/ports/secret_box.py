"""The port that seals secrets before they are stored."""

from __future__ import annotations

from typing import Protocol


class SecretsUnreadable(Exception):
    """No configured key opens a stored secret, or it was moved or altered. The message never holds the secret."""


class SecretBox(Protocol):
    """Authenticated encryption. `context` is `table|row id|column`: a value copied to another place does not open."""

    def seal(self, plain: bytes, *, context: str) -> bytes: ...

    def open(self, sealed: bytes, *, context: str) -> bytes:
        """Raise SecretsUnreadable."""
        ...

    def is_current(self, sealed: bytes) -> bool:
        """Whether it was sealed with the key that `seal` uses now; if not, rotation seals it again."""
        ...
