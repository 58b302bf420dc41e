"""The object storage port: one place to put a job's output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from server.domain.project import S3Config
from server.ids import ProjectId


@dataclass(frozen=True, slots=True)
class ObjectExtras:
    """What objects in a bucket carry besides their bytes, as S3 has it; `tagging` is a URL query. Empty: nothing."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    tagging: str = ""
    content_disposition: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A web proxy in front of a storage; `url` is `http://` or `https://` (LK-134 … LK-136)."""

    url: str = field(repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AssumeRole:
    """A role of AWS's kind, by its ARN, that the keys of a request may take on; `external_id` is what its owner asks for."""

    arn: str
    external_id: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class GcsBucket:
    """A bucket of Google Cloud Storage; `credentials` is the JSON text of a service account's key."""

    bucket: str
    credentials: str = field(repr=False)
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True)
class AzureContainer:
    """A container of Azure's Blob Storage."""

    account: str
    container: str
    account_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StorageTarget:
    """Where one job writes.

    `s3` None means the data directory, unless there is a `cloud`. `scope` is the job (or recording) id: in the data directory its objects live in
    a folder of their own. `prefix` is normalised (`""` or `a/b/`, B-34). `trusted` skips the address guard, for
    endpoints that the operator configured (design section 13). `session_token` belongs to temporary S3 keys; `path_style`
    None lets the endpoint decide whether the bucket stands in the host or in the path. `proxy` and `role` are those of `s3`.
    """

    project_id: ProjectId
    scope: str
    s3: S3Config | None = None
    prefix: str = ""
    trusted: bool = False
    session_token: str = field(default="", repr=False)
    path_style: bool | None = None
    extras: ObjectExtras = ObjectExtras()
    cloud: GcsBucket | AzureContainer | None = None
    proxy: Proxy | None = None
    role: AssumeRole | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """`key` relative to the target's prefix; `size` in bytes."""

    key: str
    size: int


class StorageError(Exception):
    """The storage refused or failed. `retryable` tells passing faults (5xx, timeouts, no space) from permanent ones
    (no such bucket, access denied). The message names bucket and cause, never credentials.
    """

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class ObjectStore(Protocol):
    """Keys are relative to the target's prefix and use `/`. All methods raise StorageError."""

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Uploads a finished file; large files go up in parts without being read into memory. Overwrites.

        The data directory may keep a hard link to the file: replace or delete it later, don't write into it.
        """
        ...

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None: ...
    async def get_bytes(self, key: str) -> bytes: ...

    async def get_file(self, key: str, path: Path) -> None:
        """Brings the object to a local file, without reading it into memory. Overwrites.

        The data directory may make it a hard link to the object: read or delete it later, don't write into it.
        """
        ...

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        """All objects whose key starts with `folder`, in key order."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Missing keys are no error."""
        ...

    async def end_uploads(self, folder: str = "") -> None:
        """Ends uploads of keys that start with `folder` which a writer that died left open; none, or no list: no error."""
        ...

    def url(self, key: str) -> str:
        """Public address of the object: CDN base, S3 address or our own signed path (B-35, VC-20)."""
        ...

    async def presign(self, key: str, expires_sec: int) -> str:
        """An address that works for `expires_sec` seconds."""
        ...


class ObjectStorage(Protocol):
    async def open(self, target: StorageTarget) -> ObjectStore:
        """Raise ServiceError invalid_argument (field `s3Config.endpoint`) when the guard refuses the endpoint.

        Raise StorageError for a `cloud` or a `proxy` that can't be used: what is wrong with it, or what is not installed.
        """
        ...
