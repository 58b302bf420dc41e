"""The programs that web egress needs and the packages they come in."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_END_SEC = 3.0
# What X, Pulse and Chromium need to know of the machine; none of the server's own settings and secrets.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "FONTCONFIG_PATH", "FONTCONFIG_FILE")


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of what was found."""

    browser: str
    display: str
    sound_server: str
    sound_recorder: str


def missing_programs() -> tuple[str, ...]:
    """The Debian packages to install before web egress works; empty when it does."""
    wanted = {
        "chromium": any(shutil.which(name) for name in _BROWSERS),
        "xvfb": shutil.which("Xvfb"),
        "pulseaudio": shutil.which("pulseaudio"),
        "pulseaudio-utils": shutil.which("parec"),
    }
    return tuple(package for package, found in wanted.items() if not found)


def find_programs() -> Programs:
    """Raise FileNotFoundError naming the packages that are missing."""
    if missing := missing_programs():
        raise FileNotFoundError(f"web egress needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
    browser = next(found for name in _BROWSERS if (found := shutil.which(name)))
    return Programs(
        browser,
        shutil.which("Xvfb") or "",
        shutil.which("pulseaudio") or "",
        shutil.which("parec") or "",
    )


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """For one of the programs: `home` takes whatever it writes."""
    kept = {name: value for name in _PASSED_ON if (value := os.environ.get(name))}
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": str(home), **more}


async def start(
    command: Sequence[str], env: Mapping[str, str], *, pass_fds: Sequence[int] = (), stdout: int | None = None
) -> asyncio.subprocess.Process:
    """In a process group of its own, so that `end` takes its children along."""
    return await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=tuple(pass_fds),
        process_group=0,
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """Asked, then killed, with its whole group."""
    _signal(process, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SEC):
            await process.wait()
    # Whoever the group's first process left behind goes as well.
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
