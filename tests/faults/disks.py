"""Disks that are small enough to be filled."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    """24 MiB at `folder` until the block ends; skips, saying why, where nothing can be mounted."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=24m") != 0:
        pytest.skip(f"cannot mount a small file system here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def fill(folder: Path, *, leave: int) -> Path:
    """Leaves about `leave` bytes free."""
    ballast = folder / "ballast.kept"
    ballast.unlink(missing_ok=True)
    usage = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, usage.f_bavail * usage.f_frsize - leave)))
    return ballast
