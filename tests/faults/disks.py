"""Disks that are small enough to be filled."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_MS_REMOUNT = 32


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    """24 MiB at `folder` until the block ends; skips, saying why, where nothing can be mounted."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=24m") != 0:
        pytest.skip(f"cannot mount a small file system here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def shrink(disk: Path, *, leave: int) -> None:
    """Leaves about `leave` bytes free on a disk of `small_file_system`, from one moment to the next.

    Whatever is written, even with `posix_fallocate`, fills it page by page, and who looks meanwhile sees it half full.
    """
    usage = os.statvfs(disk)
    size = (usage.f_blocks - usage.f_bfree) * usage.f_frsize + leave
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", _MS_REMOUNT, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot shrink {disk}")


def fill(folder: Path, *, leave: int) -> Path:
    """Leaves about `leave` bytes free."""
    ballast = folder / "ballast.kept"
    ballast.unlink(missing_ok=True)
    usage = os.statvfs(folder)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, usage.f_bavail * usage.f_frsize - leave)))
    return ballast
