"""Windows of local files as bodies of uploads, and the sums by which storages check them."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path

_READ = 1 << 20


class FilePart:
    """A window of a file as a request body: streamed, seekable for retries, stoppable from outside."""

    def __init__(self, path: Path, start: int, size: int, stop: threading.Event) -> None:
        self._file = path.open("rb")
        self._start = start
        self._size = size
        self._stop = stop
        self.seek(0)

    def __len__(self) -> int:
        return self._size

    def read(self, amount: int | None = -1) -> bytes:
        if self._stop.is_set():
            # botocore passes this one on without a retry.
            raise CancelledError("upload stopped")
        left = self._size - self.tell()
        return self._file.read(left if amount is None or amount < 0 else min(amount, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def close(self) -> None:
        self._file.close()


def content_md5(path: Path, start: int, size: int) -> str:
    """Of a window of a file, as S3's Content-MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (data := file.read(min(size, _READ))):
            digest.update(data)
            size -= len(data)
    return base64.b64encode(digest.digest()).decode()
