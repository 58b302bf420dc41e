"""How processes of this package are started: our own code, and none of the server's secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import adapters

_ROOT = Path(adapters.__file__).parents[1]
# Nothing of the server's own settings, which hold its secrets. Chromium wants a home, the resolver its files.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "LD_LIBRARY_PATH",
    "BAX_FFMPEG",
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module, whatever lies in the folder that the worker was started in."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of it a child gets."""
    passed = {name: environment[name] for name in _PASSED_ON if name in environment}
    return {**passed, "PYTHONPATH": str(_ROOT)}
