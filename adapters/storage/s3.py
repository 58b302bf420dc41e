"""Any S3-compatible bucket as an object store: streamed multipart uploads, clear errors, no credentials shown."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from adapters.storage.s3_client import S3Connection, S3Options, run_stoppable
from adapters.storage.s3_download import read_object
from adapters.storage.s3_errors import S3Error, S3Faults
from adapters.storage.s3_parts import FilePart, content_md5
from server.domain.objects import PLAYLIST_TYPE, cache_control, is_growing, key_problem, s3_url
from server.domain.project import S3Config
from server.ports.storage import ObjectExtras, StorageError, StoredObject

_T = TypeVar("_T")

_MAX_PARTS = 9_500
_MAX_LISTED = 500_000
_MAX_READ = 256 << 20
_MAX_PRESIGN_SEC = 7 * 24 * 3600
_DELETE_BATCH = 1000
_STOP_WAIT_SEC = 5.0

_NO_BATCH_DELETE_CODES = {"NotImplemented", "MissingContentMD5", "MethodNotAllowed"}


@dataclass(frozen=True, slots=True)
class _Upload:
    """What every request of one multipart upload names."""

    key: str
    upload_id: str


def _headers(extras: ObjectExtras) -> dict[str, Any]:
    given = {
        "Metadata": dict(extras.metadata),
        "Tagging": extras.tagging,
        "ContentDisposition": extras.content_disposition,
    }
    return {name: value for name, value in given.items() if value}


class S3Store:
    """`ObjectStore` over one bucket and prefix."""

    def __init__(
        self,
        connection: S3Connection,
        config: S3Config,
        prefix: str,
        options: S3Options,
        extras: ObjectExtras | None = None,
    ) -> None:
        self._extras = _headers(extras or ObjectExtras())
        self._client = connection.client
        self._threads = connection.threads
        self._keys = connection.keys
        self._config = config
        self._bucket = config.bucket
        self._faults = S3Faults(config.bucket)
        self._prefix = prefix
        self._options = options

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        size = await self._call("upload", lambda: path.stat().st_size)
        if content_type == PLAYLIST_TYPE and size <= self._options.part_size:
            data = await self._call("upload", path.read_bytes)
            await self.put_bytes(key, data, content_type=content_type)
            return
        headers = {
            "ContentType": content_type,
            "CacheControl": cache_control(content_type),
            **self._extras,
        }
        if size > self._options.part_size:
            await self._put_parts(self._full(key), path, size, headers)
        else:
            request = {"Bucket": self._bucket, "Key": self._full(key), **headers}
            await self._send_part(
                path,
                0,
                size,
                lambda body, md5: self._client.put_object(
                    Body=body, ContentLength=size, ContentMD5=md5, **request
                ),
            )

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        growing = content_type == PLAYLIST_TYPE and is_growing(data)
        request = {
            "Bucket": self._bucket,
            "Key": self._full(key),
            "ContentType": content_type,
            "CacheControl": cache_control(content_type, growing=growing),
            **self._extras,
        }
        await self._call("upload", lambda: self._client.put_object(Body=data, **request))

    async def get_bytes(self, key: str) -> bytes:
        full = self._full(key)

        def read() -> bytes:
            reply = self._client.get_object(Bucket=self._bucket, Key=full)
            with contextlib.closing(reply["Body"]) as body:
                data: bytes = body.read(_MAX_READ + 1)
            if len(data) > _MAX_READ:
                raise self._faults.error("object is too large to be read at once", retryable=False)
            if len(data) != reply["ContentLength"]:
                raise self._faults.error("download: the answer broke off", retryable=True)
            return data

        return await self._call("download", read)

    async def get_file(self, key: str, path: Path) -> None:
        full, stop = self._full(key), threading.Event()

        def passing(text: str) -> StorageError:
            return self._faults.error(f"download: {text}", retryable=True)

        def read() -> None:
            read_object(self._client, self._bucket, full, path, stop=stop, error=passing)

        await self._call("download", read, stop=stop)

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        start = self._prefix + folder

        def pages() -> tuple[StoredObject, ...]:
            paginator = self._client.get_paginator("list_objects_v2")
            contents = (
                item
                for page in paginator.paginate(Bucket=self._bucket, Prefix=start)
                for item in page.get("Contents", ())
                if item["Key"].startswith(start)
            )
            found = [
                StoredObject(item["Key"][len(self._prefix) :], item["Size"])
                for item in islice(contents, _MAX_LISTED + 1)
            ]
            if len(found) > _MAX_LISTED:
                raise self._faults.error(f"listing: more than {_MAX_LISTED} objects", retryable=False)
            return tuple(sorted(found, key=lambda item: item.key.encode()))

        return await self._call("listing", pages)

    async def delete(self, keys: Iterable[str]) -> None:
        remaining = iter([self._full(key) for key in keys])
        while batch := tuple(islice(remaining, _DELETE_BATCH)):
            try:
                await self._delete_batch(batch)
            except S3Error as error:
                if error.code not in _NO_BATCH_DELETE_CODES:
                    raise
                for key in batch:
                    await self._delete_one(key)

    def url(self, key: str) -> str:
        return s3_url(self._config, self._full(key))

    async def presign(self, key: str, expires_sec: int) -> str:
        """S3 allows at most seven days; longer times are cut to that."""
        full = self._full(key)
        seconds = min(expires_sec, _MAX_PRESIGN_SEC)
        return await self._call("signing", lambda: self._sign(full, seconds))

    def _sign(self, key: str, seconds: int) -> str:
        config = self._config
        if not (config.endpoint and config.region in ("", "auto") and config.access_key):
            request = {"Bucket": self._bucket, "Key": key}
            address: str = self._client.generate_presigned_url(
                "get_object", Params=request, ExpiresIn=seconds
            )
            return address
        # A server corrects a wrong region in a signed request, and botocore then follows, but not in an address.
        # us-east-1 is the default of MinIO and versitygw, and R2 takes it for auto.
        from botocore.auth import S3SigV4QueryAuth
        from botocore.awsrequest import AWSRequest

        unsigned = AWSRequest("GET", s3_url(replace(config, cdn_url=""), key))
        S3SigV4QueryAuth(self._keys(), "s3", "us-east-1", expires=seconds).add_auth(unsigned)
        signed: str = unsigned.url
        return signed

    async def _delete_batch(self, keys: Sequence[str]) -> None:
        request = {"Quiet": True, "Objects": [{"Key": key} for key in keys]}
        reply = await self._call(
            "deletion", lambda: self._client.delete_objects(Bucket=self._bucket, Delete=request)
        )
        for failure in reply.get("Errors", ()):
            if failure.get("Code") != "NoSuchKey":
                raise self._faults.coded("deletion", str(failure.get("Code", "")), status=200)

    async def _delete_one(self, key: str) -> None:
        await self._call("deletion", lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    async def _put_parts(self, key: str, path: Path, size: int, headers: dict[str, Any]) -> None:
        # A killed worker may have left some.
        for left in await self._unfinished(key):
            if left.key == key:
                await self._abort(left)
        began = time.monotonic()
        reply = await self._call(
            "upload", lambda: self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **headers)
        )
        upload = _Upload(key, reply["UploadId"])
        try:
            parts = await self._send_parts(upload, path, size)
            await self._complete(upload, parts, size, began)
        except BaseException:
            await asyncio.shield(self._abort(upload))
            raise

    async def _send_parts(self, upload: _Upload, path: Path, size: int) -> Sequence[dict[str, Any]]:
        part_size = max(self._options.part_size, -(-size // _MAX_PARTS))
        free = asyncio.Semaphore(self._options.part_concurrency)

        async def send(number: int, start: int) -> dict[str, Any]:
            async with free:
                length = min(part_size, size - start)
                reply = await self._send_part(
                    path,
                    start,
                    length,
                    lambda body, md5: self._client.upload_part(
                        Bucket=self._bucket,
                        Key=upload.key,
                        UploadId=upload.upload_id,
                        PartNumber=number,
                        Body=body,
                        ContentLength=length,
                        ContentMD5=md5,
                    ),
                )
                return {"PartNumber": number, "ETag": reply["ETag"]}

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(send(number, start))
                    for number, start in enumerate(range(0, size, part_size), 1)
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _complete(
        self, upload: _Upload, parts: Sequence[dict[str, Any]], size: int, began: float
    ) -> None:
        try:
            await self._call(
                "upload",
                lambda: self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=upload.key,
                    UploadId=upload.upload_id,
                    MultipartUpload={"Parts": parts},
                ),
            )
        except S3Error as error:
            # A retry after a lost answer finds the upload gone because it is complete.
            if error.code != "NoSuchUpload" or not await self._is_complete(upload.key, size, began):
                raise

    async def _is_complete(self, key: str, size: int, began: float) -> bool:
        """Whether the object has this size and was written since `began` (monotonic), by the storage's own clock."""
        head = await self._call("upload", lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        earliest = now - timedelta(seconds=time.monotonic() - began + 2)
        return bool(head["ContentLength"] == size and head["LastModified"] >= earliest)

    async def end_uploads(self, folder: str = "") -> None:
        start = self._prefix + folder
        for upload in await self._unfinished(start):
            await self._abort(upload)

    async def _unfinished(self, start: str) -> Sequence[_Upload]:
        """Uploads of keys that start so and were never completed; storage that can't list them has none."""

        def pages() -> Sequence[_Upload]:
            # Not the paginator: some servers repeat its markers for ever.
            reply = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=start)
            return [
                _Upload(item["Key"], item["UploadId"])
                for item in reply.get("Uploads", ())
                if item["Key"].startswith(start)
            ]

        try:
            return await self._call("upload", pages)
        except S3Error as error:
            if error.retryable or error.code == "NoSuchBucket":
                raise
            return ()

    async def _abort(self, upload: _Upload) -> None:
        try:
            await self._call(
                "upload",
                lambda: self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id
                ),
            )
        except S3Error:
            # The upload's own error is the one to tell; the bucket's lifecycle rule ends what is left.
            return

    async def _send_part(self, path: Path, start: int, size: int, send: Callable[[FilePart, str], _T]) -> _T:
        """`send` also gets the part's MD5: the storage refuses what arrives otherwise."""
        md5 = await self._call("upload", lambda: content_md5(path, start, size))
        stop = threading.Event()

        def work() -> _T:
            # Opened and closed by the thread: whoever is cancelled meanwhile would not get it to close it.
            with contextlib.closing(FilePart(path, start, size, stop)) as body:
                return send(body, md5)

        return await self._call("upload", work, stop=stop)

    async def _call(self, what: str, work: Callable[[], _T], *, stop: threading.Event | None = None) -> _T:
        """Runs `work` in a thread. When cancelled, stops it and waits a moment, so that it writes nothing later."""
        stop = stop or threading.Event()
        running = self._threads.submit(run_stoppable, stop, lambda: self._faults.run(what, work))
        result = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            stop.set()
            if not running.cancel():
                await asyncio.wait([result], timeout=_STOP_WAIT_SEC)
            result.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def _full(self, key: str) -> str:
        full = self._prefix + key
        problem = key_problem(full)
        if problem:
            raise self._faults.error(f"object key {problem}", retryable=False)
        return full
