"""Uploads on local disk: written as they arrive, made durable before their job exists."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import unavailable
from server.ids import JobId


class _Writer:
    def __init__(self, file: BinaryIO, part: Path, final: Path) -> None:
        self._file = file
        self._part = part
        self._final = final
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    async def write(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._file.write, chunk)
        self._size += len(chunk)

    async def keep(self) -> None:
        await asyncio.to_thread(self._settle)

    def _settle(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.rename(self._final)
        folder = os.open(self._final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class FolderSpool:
    """`folder` must be shared by all API and worker processes. Uploads are refused below `min_free_bytes`."""

    def __init__(self, folder: Path, *, min_free_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._min_free_bytes = min_free_bytes

    @asynccontextmanager
    async def receive(self, job_id: JobId) -> AsyncIterator[_Writer]:
        if shutil.disk_usage(self._folder).free < self._min_free_bytes:
            raise unavailable("the server's disk is too full for uploads", retry_after_sec=60)
        part = self._folder / f"{job_id}.part"
        with part.open("xb", buffering=0) as file:
            try:
                yield _Writer(file, part, self.path(job_id))
            finally:
                part.unlink(missing_ok=True)

    def path(self, job_id: JobId) -> Path:
        return self._folder / job_id

    async def remove(self, job_id: JobId) -> None:
        await asyncio.to_thread(self.path(job_id).unlink, missing_ok=True)
