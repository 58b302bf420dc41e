"""A bucket of Google Cloud Storage or a container of Azure as an object store, over obstore (the `cloud` extra)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.storage.cloud_client import CloudClient, CloudOptions
from adapters.storage.proxy import PROXY_LOGIN
from server.domain.objects import PLAYLIST_TYPE, cache_control, is_growing, key_problem
from server.ports.storage import StorageError, StoredObject

if TYPE_CHECKING:
    from obstore import GetOptions

_MAX_PARTS = 9_500
_MAX_LISTED = 500_000
_MAX_READ = 256 << 20
_MAX_PRESIGN_SEC = 7 * 24 * 3600
_DELETIONS_AT_ONCE = 8
_PAGE = 1000
_READ = 1 << 20

# Of a request, or of one key in a batch.
_STATUS = re.compile(r"(?:status code: |\(code: )(\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9._-]{1,64})</Code>")
_NO_PLACE = {"ContainerNotFound", "NoSuchBucket", "ResourceNotFound"}
_REASONS = {
    401: "the credentials are refused",
    403: "access denied, or the key is wrong",
    404: "no such object",
    407: PROXY_LOGIN,
    412: "the object is held by somebody else",
    429: "the storage asks to slow down",
}
# What is left passes with the machine's trouble: too many open files, a disk that does not answer.
_LASTING_FILE_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class CloudError(StorageError):
    """A StorageError with the HTTP status and the storage's own code; 0 and `""` if there was no answer."""

    def __init__(self, message: str, *, retryable: bool, status: int = 0, code: str = "") -> None:
        super().__init__(message, retryable=retryable)
        self.status = status
        self.code = code


class CloudStore:
    """`ObjectStore` over one bucket or container and prefix.

    A call that is cancelled sends nothing more. Parts of an upload that was cut off are never seen as an object: Azure
    removes them after a week, GCP by the bucket's rule for incomplete uploads.
    """

    def __init__(self, client: CloudClient, prefix: str, options: CloudOptions) -> None:
        self._client = client
        self._native = client.native
        self._prefix = prefix
        self._options = options

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        full = self._full(key)
        async with self._failures("upload", local=True):
            size = path.stat().st_size
            if content_type == PLAYLIST_TYPE and size <= self._options.part_size:
                data = await asyncio.to_thread(path.read_bytes)
                await self.put_bytes(key, data, content_type=content_type)
                return
            with path.open("rb"):
                pass  # What obstore says of a file that can't be read looks like an answer of the storage.
        async with self._failures("upload"):
            await self._put(
                full, path, content_type, chunk_size=max(self._options.part_size, -(-size // _MAX_PARTS))
            )

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        growing = content_type == PLAYLIST_TYPE and is_growing(data)
        full = self._full(key)
        async with self._failures("upload"):
            await self._put(full, data, content_type, growing=growing, chunk_size=self._options.part_size)

    async def _put(
        self, full: str, what: Path | bytes, content_type: str, *, chunk_size: int, growing: bool = False
    ) -> None:
        import obstore

        await obstore.put_async(
            self._native,
            full,
            what,
            attributes={
                "Content-Type": content_type,
                "Cache-Control": cache_control(content_type, growing=growing),
            },
            chunk_size=chunk_size,
            max_concurrency=self._options.part_concurrency,
        )

    async def get_bytes(self, key: str) -> bytes:
        import obstore

        full = self._full(key)
        async with self._failures("download"):
            found = await obstore.get_async(self._native, full)
            if found.meta["size"] > _MAX_READ:
                raise self._error("object is too large to be read at once", retryable=False)
            return bytes(await found.bytes_async())

    async def get_file(self, key: str, path: Path) -> None:
        full = self._full(key)
        async with self._failures("download", local=True):
            with path.open("wb") as file:
                async for chunk in self._windows(full):
                    await asyncio.to_thread(file.write, chunk)

    async def _windows(self, full: str) -> AsyncIterator[bytes]:
        """The object, asked for a part at a time: a request has a time limit, an object any size."""
        import obstore

        async with self._failures("download"):
            meta = await obstore.head_async(self._native, full)
        done, size, tag = 0, meta["size"], meta["e_tag"]
        while done < size:
            end = min(done + self._options.part_size, size)
            options: GetOptions = {"range": (done, end), "if_match": tag}
            got = 0
            async with self._failures("download"):
                found = await obstore.get_async(self._native, full, options=options)
                async for chunk in found.stream(_READ):
                    got += len(chunk)
                    yield chunk
            if got != end - done:
                raise self._error("download: the answer broke off", retryable=True)
            done = end

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        import obstore

        start = self._prefix + folder
        # The clouds' client lists folders only, so what begins in one of its names is looked for from there on.
        parent, _, name = start.rpartition("/")
        found: list[StoredObject] = []
        async with self._failures("listing"):
            pages = obstore.list(
                self._native, parent or None, offset=start[:-1] if len(name) > 1 else None, chunk_size=_PAGE
            )
            async for page in pages:
                keys = [one["path"] for one in page]
                found += [
                    StoredObject(one["path"][len(self._prefix) :], one["size"])
                    for one in page
                    if one["path"].startswith(start)
                ]
                if len(found) > _MAX_LISTED:
                    raise self._error(f"listing: more than {_MAX_LISTED} objects", retryable=False)
                if all(key > start and not key.startswith(start) for key in keys):
                    break
        return tuple(sorted(found, key=lambda item: item.key.encode()))

    async def delete(self, keys: Iterable[str]) -> None:
        free = asyncio.Semaphore(_DELETIONS_AT_ONCE)

        async def remove(full: str) -> None:
            import obstore

            async with free:
                try:
                    async with self._failures("deletion"):
                        await obstore.delete_async(self._native, full)
                except CloudError as error:
                    if error.status != 404 or error.code in _NO_PLACE:
                        raise

        try:
            async with asyncio.TaskGroup() as group:
                for full in [self._full(key) for key in keys]:
                    group.create_task(remove(full))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def end_uploads(self, folder: str = "") -> None:
        """Neither cloud's client can list them; see the class."""

    def url(self, key: str) -> str:
        return self._client.url(self._full(key))

    async def presign(self, key: str, expires_sec: int) -> str:
        """GCP allows at most seven days; longer times are cut to that."""
        return await asyncio.to_thread(
            self._client.signed, self._full(key), min(expires_sec, _MAX_PRESIGN_SEC)
        )

    @asynccontextmanager
    async def _failures(self, what: str, *, local: bool = False) -> AsyncIterator[None]:
        """obstore's errors in our words: its own hold addresses and whole answers. `local`: OSError is the disk's."""
        from obstore.exceptions import BaseError

        try:
            yield
        except StorageError:
            raise
        except (BaseError, OSError) as error:
            if local and isinstance(error, OSError):
                reason = os.strerror(error.errno) if error.errno else type(error).__name__
                passing = not isinstance(error, _LASTING_FILE_ERRORS)
                raise self._error(f"{what}: local file: {reason}", retryable=passing) from None
            raise self._answered(what, error) from None

    def _answered(self, what: str, error: Exception) -> CloudError:
        text = str(error)
        status = int(found.group(1)) if (found := _STATUS.search(text)) else 0
        code = found.group(1) if (found := _CODE.search(text)) else ""
        if not status and isinstance(error, FileNotFoundError):
            status = 404
        if not status:
            return self._unanswered(what, text)
        reason = "it does not exist" if code in _NO_PLACE else _REASONS.get(status, "")
        told = f"{code} ({reason})" if code and reason else code or reason
        return self._error(
            f"{what}: {told}, HTTP {status}" if told else f"{what}: HTTP {status}",
            retryable=status >= 500 or status in (408, 429),
            status=status,
            code=code,
        )

    def _unanswered(self, what: str, text: str) -> CloudError:
        if "invalid peer certificate" in text:
            return self._error(f"{what}: the storage's certificate is not valid", retryable=False)
        if "ProxyAuthRequired" in text:
            return self._error(f"{what}: {PROXY_LOGIN}", retryable=False)
        if "kind: Timeout" in text:
            return self._error(f"{what}: no answer from the storage in time", retryable=True)
        if "HttpError" in text or "HTTP error" in text:
            return self._error(f"{what}: the storage could not be reached", retryable=True)
        return self._error(f"{what}: the credentials cannot be used", retryable=False)

    def _error(self, text: str, *, retryable: bool, status: int = 0, code: str = "") -> CloudError:
        return CloudError(f"{self._client.place}: {text}", retryable=retryable, status=status, code=code)

    def _full(self, key: str) -> str:
        full = self._prefix + key
        problem = key_problem(full)
        if problem:
            raise self._error(f"object key {problem}", retryable=False)
        return full
