"""The processes that a worker has started to record (Linux)."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Of its first thread, which is the only one of ours that starts processes; none of a process that is gone."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def fork_servers(worker: int) -> list[int]:
    return [pid for pid in children(worker) if b"adapters.recorder" in _arguments(pid)]


def recorders(worker: int) -> list[int]:
    return [pid for parent in fork_servers(worker) for pid in children(parent)]


def _arguments(pid: int) -> list[bytes]:
    """None of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
