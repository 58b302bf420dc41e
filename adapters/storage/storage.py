"""Opens the store of a target: the data directory, or a bucket behind a vetted endpoint."""

from __future__ import annotations

from adapters.storage.cloud import CloudStore
from adapters.storage.cloud_client import CloudOptions, open_cloud
from adapters.storage.local import LocalObjects
from adapters.storage.proxy import vetted_proxy
from adapters.storage.s3 import S3Store
from adapters.storage.s3_client import AddressGuard, S3Clients, S3Options, Way
from server.errors import ServiceError, invalid
from server.ports.storage import ObjectStore, StorageTarget


class Storage:
    """`ObjectStorage` over `LocalObjects`, boto3 and obstore. `guard` vets endpoints and proxies of untrusted targets."""

    def __init__(
        self,
        local: LocalObjects,
        *,
        guard: AddressGuard,
        options: S3Options | None = None,
        cloud: CloudOptions | None = None,
    ) -> None:
        self._local = local
        self._guard = guard
        self._cloud = cloud or CloudOptions()
        self._clients = S3Clients(guard, options or S3Options())

    async def open(self, target: StorageTarget) -> ObjectStore:
        if target.cloud is not None:
            guard = None if target.trusted else self._guard
            client = await open_cloud(target.cloud, self._cloud, guard=guard)
            return CloudStore(client, target.prefix, self._cloud)
        if target.s3 is None:
            return self._local.store(target)
        if not target.trusted:
            if not (target.s3.access_key and target.s3.secret_key):
                # Without keys boto3 would fall back to this machine's own AWS credentials.
                raise invalid("s3Config.accessKey", "and secretKey are required")
            if target.s3.endpoint:
                await self._vet(target.s3.endpoint)
        way = Way(
            trusted=target.trusted,
            session_token=target.session_token,
            path_style=target.path_style,
            proxy=await vetted_proxy(target.proxy, self._guard, place=f"S3 bucket {target.s3.bucket}"),
            role=target.role,
        )
        connection = await self._clients.get(target.s3, way)
        return S3Store(connection, target.s3, target.prefix, self._clients.options, target.extras)

    async def close(self) -> None:
        await self._clients.close()

    async def _vet(self, endpoint: str) -> None:
        try:
            await self._clients.vet(endpoint)
        except (ServiceError, ValueError, OSError) as error:
            # One text for blocked and unknown hosts: the difference would map our network for the caller.
            raise invalid("s3Config.endpoint", "this address is not allowed or cannot be reached") from error
