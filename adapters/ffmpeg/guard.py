"""Exec wrapper for media processes: dies with its parent, under limits, sees only its own files, then becomes the
real command.

Run by path with `python -I -S`, so it imports only the standard library: `guard.py ORDER COMMAND ARGS…`. A wrapper
instead of `preexec_fn`, which may deadlock in a parent with threads. ORDER is JSON: `parent` (pid), `limits` (by
RLIMIT name), `nice`, `list`, `read` and `write` (paths, with what is below them; everything else is closed by Landlock
where the kernel has it).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import Mapping
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
# linux/landlock.h: file access rights by bit, and the ABI that brought the later ones.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ABI_1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL = (2, 1 << 13), (3, 1 << 14), (5, 1 << 15)
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE[1] | _IOCTL[1]
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_NET_ABI, _NET_BIND_CONNECT = 4, 0b11
# Libraries, the processor count, randomness; no /proc and no /etc, where other processes' and the host's secrets are.
_LIBRARIES = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
_SYSTEM = (*_LIBRARIES, "/sys/devices/system/cpu", "/dev/urandom", "/dev/random", "/dev/zero")


def main(argv: list[str]) -> None:
    order = json.loads(argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["parent"]:
        # The parent died before the signal was armed.
        os._exit(137)
    for name, value in order["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
    _be_nice(order["nice"])
    if sys.platform == "linux":
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        abi = landlock_abi()
        if abi:
            _close_files(libc, abi, order, command=argv[2])
    os.execv(argv[2], argv[2:])  # noqa: S606 - this is what the wrapper is for


def _be_nice(nice: int) -> None:
    os.nice(nice)
    # Where the kernel shares the processor between sessions first (autogroup), niceness means nothing to other sessions,
    # and this is one of its own: recordings would be held up by conversions.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # noqa: PTH123 - no more imports
        file.write(str(nice))


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def _close_files(libc: ctypes.CDLL, abi: int, order: Mapping[str, Any], *, command: str) -> None:
    handled = _ABI_1 | sum(bit for since, bit in (_REFER, _TRUNCATE, _IOCTL) if abi >= since)
    # Older kernels refuse a longer structure than they know.
    attributes = struct.pack("QQ", handled, _NET_BIND_CONNECT)[: 16 if abi >= _NET_ABI else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return
    for path in (*_SYSTEM, command, *order["read"]):
        _allow(libc, ruleset, path, _READ & handled)
    for path in order["list"]:
        _allow(libc, ruleset, path, _READ_DIR)
    for path in order["write"]:
        _allow(libc, ruleset, path, handled)
    _allow(libc, ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE) & handled)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        rights &= _FILE_RIGHTS
    rule = struct.pack("=Qi", rights, handle)
    libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    os.close(handle)


if __name__ == "__main__":
    main(sys.argv)
