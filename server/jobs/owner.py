"""Names of workers, and whether the process behind a name is certainly gone."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

_UNKNOWN = "-"


def new_owner() -> str:
    """`host/boot/pid namespace/pid/start/random`: never used twice, and checkable on the machine that made it."""
    pid = os.getpid()
    parts = (
        socket.gethostname().replace("/", _UNKNOWN),
        _boot_id(),
        _pid_namespace(),
        str(pid),
        _start_ticks(pid) or _UNKNOWN,
        secrets.token_hex(4),
    )
    return "/".join(parts)


def host_of(owner: str) -> str:
    """The host of a worker."""
    return owner.partition("/")[0]


def is_gone(owner: str) -> bool:
    """True only if `owner` ran under this very kernel and pid namespace and has ended; False when in doubt."""
    parts = owner.split("/")
    if len(parts) != 6 or _UNKNOWN in parts[1:5]:
        return False
    _, boot, namespace, pid, start, _ = parts
    if boot != _boot_id() or namespace != _pid_namespace() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    now = _start_ticks(int(pid))
    return now is not None and now != start


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _UNKNOWN


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return _UNKNOWN


def _start_ticks(pid: int) -> str | None:
    """When the process started, in ticks since boot; `ended` for one that only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Behind the command name, which may itself hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in {"Z", "X"} else fields[19]
