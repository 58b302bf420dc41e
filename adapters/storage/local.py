"""The data directory as an object store: atomic writes under `objects/<project>/<scope>/`, signed addresses."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from server.clock import Clock
from server.domain.objects import CapabilitySigner, Grant, Refusal, join_url, key_problem
from server.ports.storage import StorageError, StorageTarget, StoredObject

_PERMANENT = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTEMPTY}
_STALE_SEC = 24 * 3600

_T = TypeVar("_T")


class LocalObjects:
    """All objects below `root`, shared by the stores that write them and the route that serves them."""

    def __init__(self, root: Path, *, public_url: str, signer: CapabilitySigner, clock: Clock) -> None:
        self._root = root
        self._public_url = public_url.rstrip("/")
        self._signer = signer
        self._clock = clock

    def store(self, target: StorageTarget) -> LocalStore:
        """The store of one job or recording; creates nothing yet."""
        grant = Grant(target.project_id, target.scope)
        return LocalStore(self, self._root / grant.project_id / grant.scope, grant, target.prefix)

    def address(self, grant: Grant, key: str) -> str:
        """`{public_url}/o/{capability}/{key}` (design section 13); `key` with its prefix."""
        return join_url(f"{self._public_url}/o/{self._signer.issue(grant)}", key)

    def expiry(self, seconds: int) -> int:
        return int(self._clock.now().timestamp()) + seconds

    async def resolve(self, capability: str, key: str) -> Path | Refusal:
        """The file behind an address; MISSING also for what would lead outside the grant's folder."""
        grant = self._signer.open(capability, self._clock.now())
        if isinstance(grant, Refusal):
            return grant
        if key_problem(key) is not None:
            return Refusal.MISSING
        folder = self._root / grant.project_id / grant.scope
        return await asyncio.to_thread(self._locate, folder, key)

    def _locate(self, folder: Path, key: str) -> Path | Refusal:
        path = (folder / key).resolve()
        inside = path.is_relative_to(folder.resolve()) and folder.resolve().is_relative_to(
            self._root.resolve()
        )
        return path if inside and path.is_file() else Refusal.MISSING

    def write(self, path: Path, fill: Callable[[Path], None]) -> None:
        """Lets `fill` make a file beside the tree, on the same filesystem, then puts it at `path` in one step."""
        staging = self._root / ".tmp"
        staging.mkdir(parents=True, exist_ok=True)
        temporary = staging / uuid.uuid4().hex
        try:
            fill(temporary)
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            _replace(temporary, path)
        finally:
            # rename() between two links of one file does nothing, so the temporary name may still be there.
            temporary.unlink(missing_ok=True)

    def remove_empty(self, folder: Path) -> None:
        """Removes `folder` and its parents below the root while they are empty."""
        while folder != self._root and folder.is_relative_to(self._root):
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                if error.errno != errno.ENOENT:
                    return
            folder = folder.parent

    def reap(self) -> None:
        """Deletes what writers that died a day ago left half-written; called at start."""
        deadline = time.time() - _STALE_SEC
        for leftover in (self._root / ".tmp").glob("*"):
            try:
                if leftover.stat().st_mtime < deadline:
                    leftover.unlink()
            except FileNotFoundError:
                continue


def _replace(temporary: Path, path: Path) -> None:
    """Moves into place; tries again when a concurrent delete removed the empty folder in between."""
    for last in (False, False, True):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.replace(path)
            return
        except FileNotFoundError:
            if last:
                raise


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        destination.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, destination)


class LocalStore:
    """`ObjectStore` over one folder of the data directory. Blocking calls run in threads."""

    def __init__(self, objects: LocalObjects, folder: Path, grant: Grant, prefix: str) -> None:
        self._objects = objects
        self._folder = folder
        self._grant = grant
        self._prefix = prefix

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Links the file where it can (same filesystem), so it must not be written in place afterwards."""
        target = self._path(key)
        await self._run(lambda: self._objects.write(target, lambda temporary: _link_or_copy(path, temporary)))

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        target = self._path(key)

        def fill(temporary: Path) -> None:
            temporary.write_bytes(data)

        await self._run(lambda: self._objects.write(target, fill))

    async def get_bytes(self, key: str) -> bytes:
        return await self._run(self._path(key).read_bytes)

    async def get_file(self, key: str, path: Path) -> None:
        """Links the object where it can, so `path` must not be written in place afterwards."""
        source = self._path(key)

        def bring() -> None:
            path.unlink(missing_ok=True)
            _link_or_copy(source, path)

        await self._run(bring)

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        return await self._run(lambda: self._list(folder))

    async def end_uploads(self, folder: str = "") -> None:
        """Nothing: what an interrupted write left is `LocalObjects.reap`'s."""

    async def delete(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        await self._run(lambda: self._delete(paths))

    def url(self, key: str) -> str:
        self._path(key)
        return self._objects.address(self._grant, self._prefix + key)

    async def presign(self, key: str, expires_sec: int) -> str:
        self._path(key)
        grant = Grant(self._grant.project_id, self._grant.scope, self._objects.expiry(expires_sec))
        return self._objects.address(grant, self._prefix + key)

    def _path(self, key: str) -> Path:
        problem = key_problem(self._prefix + key)
        if problem:
            raise StorageError(f"object key {problem}", retryable=False)
        return self._folder / (self._prefix + key)

    def _list(self, folder: str) -> tuple[StoredObject, ...]:
        base = self._folder / self._prefix
        found = []
        for parent, _, names in os.walk(base):
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(base).as_posix()
                if key.startswith(folder):
                    found.append(StoredObject(key, path.stat().st_size))
        return tuple(sorted(found, key=lambda item: item.key.encode()))

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                continue
        for folder in {path.parent for path in paths}:
            self._objects.remove_empty(folder)

    async def _run(self, work: Callable[[], _T]) -> _T:
        """When cancelled it waits for the thread, so that nothing is written later."""
        running = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.gather(running, return_exceptions=True)
            raise
        except OSError as error:
            raise _storage_error(error) from error


def _storage_error(error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("the data directory is full", retryable=True)
    if error.errno == errno.ENOENT:
        return StorageError("data directory: no such object or source file", retryable=False)
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return StorageError(f"data directory: {reason}", retryable=error.errno not in _PERMANENT)
