"""Carries the log of the embedded livekit-server into ours, without anything that signs."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

_KEPT_LINES = 40
_READ_BYTES = 256 * 1024
_TRUNCATE_BYTES = 4 * 1024 * 1024
_LINE_CHARS = 2000
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_QUIET = frozenset({"level", "ts", "logger", "caller", "msg", "stacktrace"})
# What LiveKit warns of whenever somebody leaves.
_ORDINARY = ("User Initiated Abort: Close called", "websocket: close sent")
_log = structlog.get_logger("livekit-server")


class LogTail:
    """Reads what was appended to a file since the last look; the file is emptied when it grows.

    LiveKit writes to a file because it must survive us: the end of a pipe would kill it.
    """

    def __init__(self, path: Path, secrets: Iterable[str]) -> None:
        self._path = path
        self._secrets = [secret for secret in secrets if secret]
        self._offset = 0
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def open_for_writing(self) -> int:
        """A descriptor for a new server; what an earlier one wrote is gone."""
        self._offset, self._rest = 0, b""
        self._lines.clear()
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def skip(self) -> None:
        """Go on from the end: an adopted server's earlier lines are old news."""
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def poll(self) -> None:
        """Log what is new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                found = file.read(_READ_BYTES)
        except FileNotFoundError:
            return
        self._offset += len(found)
        *lines, self._rest = (self._rest + found).split(b"\n")
        if len(self._rest) > _READ_BYTES:
            self._rest = b""
        for line in lines:
            self._take(line.decode(errors="replace"))
        if self._offset > _TRUNCATE_BYTES and len(found) < _READ_BYTES:
            os.truncate(self._path, 0)
            self._offset = 0

    def last_words(self) -> str:
        """The last line that says what went wrong, or nothing."""
        self.poll()
        return self._lines[-1] if self._lines else ""

    def _take(self, line: str) -> None:
        line = self._scrub(line.strip())[:_LINE_CHARS]
        if not line:
            return
        parsed = _parsed(line)
        if parsed is None:
            self._lines.append(line)
            _log.warning("livekit-server wrote", line=line)
            return
        message = str(parsed.get("msg", ""))
        fields = {key: value for key, value in parsed.items() if key not in _QUIET}
        cause = f": {fields['error']}" if fields.get("error") else ""
        self._lines.append(f"{message}{cause}")
        if any(text in cause for text in _ORDINARY):
            return
        speak = _log.error if parsed.get("level") in {"error", "fatal", "panic"} else _log.warning
        speak(
            "livekit-server reports",
            text=message,
            **{f"livekit_{key}": value for key, value in fields.items()},
        )

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _TOKEN.sub("***", text)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
