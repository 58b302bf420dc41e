"""Single JSON values as Python's: what is taken, and how what is not is told."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any

from server.errors import ServiceError, invalid

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class FieldFault(Exception):
    """A wrong value; the path grows while the error travels outwards."""

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.path = path

    def below(self, step: str) -> FieldFault:
        joint = "." if self.path and not self.path.startswith("[") else ""
        return FieldFault(self.text, f"{step}{joint}{self.path}")

    def as_error(self) -> ServiceError:
        return invalid(self.path or "body", self.text)


def integer(value: Any, low: int, high: int, *, text_allowed: bool) -> int:
    """An integer in range; `5.0` is one, `true` is not."""
    if text_allowed and isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldFault("must be an integer")
    if not low <= value <= high:
        raise FieldFault(f"must be between {low} and {high}")
    return value


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldFault("must be a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise FieldFault("must be a finite number")
    return found


def number_from_text(text: str) -> float:
    """A number as JSON writes it and nothing else: no `1_000`, ` 1`, `nan`."""
    if not _NUMBER.fullmatch(text) or len(text) > 400:
        raise FieldFault("must be a number")
    return number(float(text))


def number_or_text(value: Any) -> float:
    return number_from_text(value) if isinstance(value, str) else number(value)


def string(value: Any) -> str:
    if not isinstance(value, str):
        raise FieldFault("must be a string")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldFault("must be true or false")
    return value


def bytes_of(value: Any) -> bytes:
    try:
        text = string(value).replace("-", "+").replace("_", "/")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise FieldFault("must be base64 text") from None
