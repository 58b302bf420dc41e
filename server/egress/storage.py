"""Where outputs of egresses go: the request's own storage, the project's, the operator's or the data directory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from server.conversion.fenced_store import FencedStore
from server.domain.egress import Egress, StorageChoice, Surface
from server.domain.objects import content_type, normalise_prefix
from server.domain.project import S3Config
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.ids import ProjectId
from server.ports.jobs import JobRun
from server.ports.storage import (
    AssumeRole,
    AzureContainer,
    GcsBucket,
    ObjectExtras,
    ObjectStorage,
    ObjectStore,
    Proxy,
    StorageError,
    StorageTarget,
)
from server.ports.unit_of_work import Database

_NAMES: Mapping[str, str] = {
    "s3": "S3",
    "gcp": "GCP",
    "azure": "Azure",
    "alioss": "AliOSS",
}


@dataclass(frozen=True, slots=True)
class OpenStorage:
    """The storage of one output. Keys that it is given are without the target's prefix."""

    store: ObjectStore
    target: StorageTarget
    name: str
    path_style: bool
    livekit_locations: bool
    is_backup: bool = False

    def full_key(self, key: str) -> str:
        """The object's whole key, as the caller's bucket knows it."""
        return self.target.prefix + key

    def location(self, key: str) -> str:
        """The public address; for LiveKit's surface and the request's own S3 in LiveKit's form."""
        if self.target.s3 is None or not self.livekit_locations:
            return self.store.url(key)
        return _livekit_location(self.target.s3, self.full_key(key), path_style=self.path_style)

    def fenced(self, run: JobRun) -> OpenStorage:
        """The same, writing only while the job is surely this worker's."""
        return replace(self, store=FencedStore(self.store, run))

    async def put(self, key: str, path: Path) -> str:
        """Uploads a file and looks whether it is there in full; its SHA-256. Raise StorageError."""
        size = (await asyncio.to_thread(path.stat)).st_size
        digest, _ = await asyncio.gather(
            asyncio.to_thread(sha256_of, path),
            self.store.put_file(key, path, content_type=content_type(key)),
        )
        found = next((one.size for one in await self.store.list(key) if one.key == key), None)
        if found != size:
            raise StorageError(f"{key} is missing or incomplete after its upload", retryable=True)
        return digest


class EgressStorages:
    """Opens the storages of egresses."""

    def __init__(self, database: Database, storage: ObjectStorage, policy: StoragePolicy) -> None:
        self._database = database
        self._storage = storage
        self._policy = policy
        self._choices = StorageChoices(policy)

    @property
    def has_backup(self) -> bool:
        return self._policy.backup is not None

    async def open(self, egress: Egress, index: int, *, backup: bool = False) -> OpenStorage:
        """The storage number `index` of the egress. Raise StorageError, ServiceError."""
        async with self._database.read() as tx:
            secrets = await tx.egresses.secrets(egress.id)
        choice = secrets.storages[index] if index < len(secrets.storages) else StorageChoice()
        if backup and self._policy.backup is not None:
            own = self._policy.backup
            prefix = normalise_prefix(own.prefix)
            target = StorageTarget(egress.project_id, scope_of(egress.id), own, prefix, trusted=True)
            return await self._opened(target, "backup", choice, egress, is_backup=True)
        if choice.backend == "project":
            async with self._database.read() as tx:
                target = await self._choices.target(tx, egress.project_id, scope_of(egress.id), choice)
            return await self._opened(target, "S3" if target.s3 else "Local", choice, egress)
        return await self._opened(
            own_target(egress.project_id, scope_of(egress.id), choice), _NAMES[choice.backend], choice, egress
        )

    async def _opened(
        self,
        target: StorageTarget,
        name: str,
        choice: StorageChoice,
        egress: Egress,
        *,
        is_backup: bool = False,
    ) -> OpenStorage:
        return OpenStorage(
            store=await self._storage.open(target),
            target=target,
            name=name,
            path_style=bool(choice.config.get("force_path_style")),
            livekit_locations=egress.surface is Surface.LIVEKIT
            and choice.backend != "project"
            and not is_backup,
            is_backup=is_backup,
        )


def own_target(project_id: ProjectId, scope: str, choice: StorageChoice) -> StorageTarget:
    """The storage that a request named itself, with all that it said of it (LK-95 … LK-114)."""
    if choice.backend in ("gcp", "azure"):
        return StorageTarget(project_id, scope, cloud=own_cloud(choice))
    config = choice.config
    arn = str(config.get("assume_role_arn") or "")
    return StorageTarget(
        project_id,
        scope,
        own_s3(config),
        session_token=str(config.get("session_token") or ""),
        path_style=_path_style(choice),
        extras=_extras(choice),
        proxy=_proxy(config),
        role=AssumeRole(arn, str(config.get("assume_role_external_id") or "")) if arn else None,
    )


def _proxy(config: Mapping[str, Any]) -> Proxy | None:
    given = dict(config.get("proxy") or {})
    url, username, password = (str(given.get(name) or "") for name in ("url", "username", "password"))
    return Proxy(url, username, password) if url else None


def _path_style(choice: StorageChoice) -> bool | None:
    """AliOSS refuses paths; everything else with an endpoint of its own takes them, whether asked for or not."""
    if choice.backend == "alioss":
        return False
    return True if choice.config.get("force_path_style") else None


def _extras(choice: StorageChoice) -> ObjectExtras:
    """LK-101, LK-102; shown in the browser instead of saved, unless something else is asked for, as with LiveKit."""
    config = choice.config
    return ObjectExtras(
        metadata={str(key): str(value) for key, value in dict(config.get("metadata") or {}).items()},
        tagging=str(config.get("tagging") or ""),
        content_disposition=str(config.get("content_disposition") or "inline"),
    )


def own_s3(config: Mapping[str, Any]) -> S3Config:
    """The storage of one request, from the fields of LiveKit's `S3Upload` or `AliOSSUpload`."""
    endpoint = str(config.get("endpoint") or "")
    if endpoint and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    return S3Config(
        bucket=str(config.get("bucket") or ""),
        region=str(config.get("region") or ""),
        endpoint=endpoint,
        access_key=str(config.get("access_key") or ""),
        secret_key=str(config.get("secret") or ""),
    )


def own_cloud(choice: StorageChoice) -> GcsBucket | AzureContainer:
    """The storage of one request, from the fields of LiveKit's `GCPUpload` or `AzureBlobUpload` (LK-104 … LK-109)."""
    given = {name: value for name, value in choice.config.items() if isinstance(value, str)}
    if choice.backend == "azure":
        return AzureContainer(
            account=given.get("account_name", ""),
            container=given.get("container_name", ""),
            account_key=given.get("account_key", ""),
        )
    return GcsBucket(
        bucket=given.get("bucket", ""),
        credentials=given.get("credentials", ""),
        proxy=_proxy(choice.config),
    )


def scope_of(egress_id: str) -> str:
    """The folder of an egress's objects in the data directory."""
    return egress_id


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _livekit_location(s3: S3Config, key: str, *, path_style: bool) -> str:
    """livekit-surface.md 3.5, but right where the endpoint has a scheme."""
    base = s3.endpoint or "https://s3.amazonaws.com"
    path = quote(key, safe="/-._~")
    if path_style:
        return f"{base.rstrip('/')}/{s3.bucket}/{path}"
    return f"https://{s3.bucket}.{urlsplit(base).netloc}/{path}"
