"""What a process has open (Linux)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def descriptors(pid: int | str = "self") -> list[str]:
    """What each descriptor stands for, as `/tmp/a.db` or `socket:[4711]`."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # Closed since it was listed.
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return found
