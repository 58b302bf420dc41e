"""The port that brings a finished recording to local disk."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from server.ids import ProjectId


class RecordingReader(Protocol):
    async def fetch(self, project_id: ProjectId, recording_id: str, target: Path) -> None:
        """From storage, never through a URL; `target` may become a hard link, so don't write into it.

        Raise ServiceError for a recording that is not there or has no file, StorageError, or OSError for the local disk.
        """
        ...
