"""Which livekit-server runs, and which release `bax livekit install` builds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

RELEASE = "1.13.5"
INSTALL = "bax livekit install"
_VERSION_TIMEOUT_SEC = 10


def cached_binary() -> Path:
    """Where the pinned release lies once it is built, outside of any checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "baxcloud" / "bin" / f"livekit-server-v{RELEASE}"


def find_binary(named: Path | None = None) -> Path:
    """The operator's, else the built one, else the one on PATH.

    Raise FileNotFoundError with a text that names what to do.
    """
    if named is not None:
        found = shutil.which(named)
        if found is None:
            raise FileNotFoundError(f"BAX_LIVEKIT_SERVER names {named}, which is no executable file")
        return Path(found).absolute()
    cached = cached_binary()
    if os.access(cached, os.X_OK) and cached.is_file():
        return cached.absolute()
    found = shutil.which("livekit-server")
    if found is None:
        raise FileNotFoundError(
            f"there is no livekit-server on this machine: run `{INSTALL}`, or set BAX_LIVEKIT_SERVER or BAX_LIVEKIT_URL"
        )
    return Path(found).absolute()


def version_of(binary: Path) -> str | None:
    """`1.13.5`, or None if it does not say; blocks for some milliseconds."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # `livekit-server version 1.13.5`
    words = done.stdout.split()
    return words[-1] if done.returncode == 0 and words[:2] == ["livekit-server", "version"] else None
