"""What a supervisor leaves in its folder for others: the lock that only one holds, and where its server listens."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from adapters.livekit.ports import Ports
from adapters.livekit.server_config import write_private


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """Of the server that was started last: where it listens, and what it was started with."""

    url: str
    ports: Ports
    fingerprint: str
    binary: str
    version: str | None

    def write(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self)).encode())


def read_record(path: Path) -> ServerRecord | None:
    """None also for a file of another version of ours."""
    try:
        stored = json.loads(path.read_bytes())
        return ServerRecord(ports=Ports(**stored.pop("ports")), **stored)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def try_lock(file: IO[str]) -> bool:
    """Held until the file is closed, which a crash does too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
