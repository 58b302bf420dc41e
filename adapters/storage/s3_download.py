"""Brings one object of a bucket to a local file, going on where an answer broke off."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from server.ports.storage import StorageError

_READ = 1 << 20
_TRIES = 4

Error = Callable[[str], StorageError]
"""A passing fault, in the store's own words."""


def read_object(
    client: Any, bucket: str, key: str, path: Path, *, stop: threading.Event, error: Error
) -> None:
    """Overwrites `path`. Raise botocore's errors, OSError for the local disk, what `error` makes, CancelledError."""
    done, size, etag = 0, 0, ""
    with path.open("wb") as file:
        for _ in range(_TRIES):
            asked = {"Range": f"bytes={done}-", "IfMatch": etag} if done else {}
            reply = client.get_object(Bucket=bucket, Key=key, **asked)
            if not done:
                size, etag = reply["ContentLength"], reply["ETag"]
            with contextlib.closing(reply["Body"]) as body:
                for chunk in _chunks(body):
                    if stop.is_set():
                        raise CancelledError
                    file.write(chunk)
                    done += len(chunk)
            if done == size:
                return
    raise error("the answer broke off again and again")


def _chunks(body: Any) -> Iterator[bytes]:
    """Until its end, whole or broken off."""
    from botocore import exceptions as boto

    broken = (boto.HTTPClientError, boto.ReadTimeoutError, boto.IncompleteReadError)
    with contextlib.suppress(*broken):
        while chunk := body.read(_READ):
            yield chunk
