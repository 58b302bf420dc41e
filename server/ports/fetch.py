"""The port that brings a source file to local disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class DownloadError(Exception):
    """The source could not be had after all tries. `message` is for the caller (VC-73), e.g.
    `HTTP 403 fetching input URL after 3 retries`. `timed_out` picks DOWNLOAD_TIMEOUT over DOWNLOAD_FAILED.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Downloaded:
    path: Path
    size: int


class SourceFetcher(Protocol):
    def check_url(self, url: str, *, field: str) -> None:
        """Syntax only, without a look-up: raise ServiceError invalid_argument naming `field` for what can never be
        fetched (scheme, userinfo, control characters, literal private address, port).
        """
        ...

    async def fetch(
        self, url: str, destination: Path, *, on_progress: Callable[[int, int | None], None]
    ) -> Downloaded:
        """1 + 3 tries, continuing by Range where the source allows. `on_progress(received, total)` in bytes.
        Raise DownloadError, or OSError when the local disk fails.
        """
        ...
