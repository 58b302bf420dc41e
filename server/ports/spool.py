"""The port that keeps uploaded files until a worker has converted them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from server.ids import JobId


class SpoolWriter(Protocol):
    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Raise OSError when the disk fails."""
        ...

    async def keep(self) -> None:
        """Makes the file durable under the job's id; without this it is gone when the block ends."""
        ...


class UploadSpool(Protocol):
    """A folder that API and workers share."""

    def receive(self, job_id: JobId) -> AbstractAsyncContextManager[SpoolWriter]:
        """Raise ServiceError unavailable when too little disk is free."""
        ...

    def path(self, job_id: JobId) -> Path:
        """Where the upload of a job lies."""
        ...

    async def remove(self, job_id: JobId) -> None:
        """Missing files are no error."""
        ...
