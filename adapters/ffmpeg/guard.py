"""Exec wrapper for media processes: dies with its parent, under limits, then becomes the real command.

Run by path with `python -I -S`, so it imports only the standard library: `guard.py JSON COMMAND ARGS…`.
A wrapper instead of `preexec_fn`, which may deadlock in a parent with threads. JSON keys: `parent` (pid), `limits`
({"AS": bytes, …} by RLIMIT name), `nice`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(argv: list[str]) -> None:
    order = json.loads(argv[1])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != order["parent"]:
        # The parent died before the signal was armed.
        os._exit(137)
    for name, value in order["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
    os.nice(order["nice"])
    os.execv(argv[2], argv[2:])  # noqa: S606 - this is what the wrapper is for


if __name__ == "__main__":
    main(sys.argv)
