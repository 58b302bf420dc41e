"""Finds and ends livekit-server processes by the configuration file they were started with."""

from __future__ import annotations

import functools
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# The first SIGTERM makes LiveKit wait for its participants to leave, the second ends their calls.
_INSIST_AFTER_SEC = 0.3
_KILL_AFTER_SEC = 4.0
_GONE_TIMEOUT_SEC = 5.0
_POLL_SEC = 0.02
_HAS_PROC = platform.system() == "Linux"


def started_with(config: Path) -> list[int]:
    """Process ids of this user's livekit-servers that were started with `--config <config>`.

    No file of ids is kept, so none can name a stranger's process: what runs is asked for each time.
    """
    wanted = ["--config", str(config)]
    return [pid for pid, argv in _own_processes() if argv[1:3] == wanted]


def runs(pid: int, config: Path) -> bool:
    """Whether `pid` is still such a process; a zombie is not."""
    if _HAS_PROC:
        return _arguments(pid)[1:3] == ["--config", str(config)]
    return pid in started_with(config)


def end_all(config: Path) -> None:
    """Ends every server that was started with this configuration. Raise TimeoutError as `end`."""
    for pid in started_with(config):
        end(pid, functools.partial(runs, pid, config))


def end(pid: int, is_running: Callable[[], bool]) -> None:
    """Blocks until the process has ended: asked, asked again, then killed with its group.

    Raise TimeoutError if even that does not help.
    """
    started = time.monotonic()
    steps = [(0.0, signal.SIGTERM), (_INSIST_AFTER_SEC, signal.SIGTERM), (_KILL_AFTER_SEC, signal.SIGKILL)]
    while is_running():
        elapsed = time.monotonic() - started
        if steps and elapsed >= steps[0][0]:
            _signal(pid, steps.pop(0)[1])
        if elapsed > _KILL_AFTER_SEC + _GONE_TIMEOUT_SEC:
            raise TimeoutError(f"livekit-server (process {pid}) does not end")
        time.sleep(_POLL_SEC)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        if number is signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _own_processes() -> Iterator[tuple[int, list[str]]]:
    if _HAS_PROC:
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal() and _is_ours(entry):
                yield int(entry.name), _arguments(int(entry.name))
        return
    command = ["ps", "-U", str(os.getuid()), "-ww", "-o", "pid=,command="]
    for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines():
        pid, _, rest = line.strip().partition(" ")
        program, separator, config = rest.partition(" --config ")
        yield int(pid), [program, "--config", config] if separator else [program]


def _is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _arguments(pid: int) -> list[str]:
    """Empty for a zombie and for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
