"""A file that is written from the event loop without blocking it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self, TypeVar

T = TypeVar("T")


class PartFile:
    """Written in order; use as an async context manager. All methods raise OSError when the disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._file = await _in_thread(lambda: self._path.open("wb"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            await _in_thread(self._file.close)

    async def write(self, data: bytes | bytearray) -> None:
        file = self._opened()
        await _in_thread(lambda: file.write(data))

    async def restart(self) -> None:
        """Throws away what was written."""
        file = self._opened()

        def rewind() -> None:
            file.seek(0)
            file.truncate()

        await _in_thread(rewind)

    async def require_space(self, needed: int) -> None:
        """Raise OSError ENOSPC unless `needed` more bytes fit on the disk."""
        usage = await asyncio.to_thread(shutil.disk_usage, self._path.parent)
        if usage.free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path.parent))

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file


async def _in_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but a cancellation waits for the thread: it must not outlive the open file."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
