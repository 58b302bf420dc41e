"""Every call of a conversion through its ports fails once in its turn, as SQLite's tests fail every n-th I/O call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.ffmpeg.audit import audit, directory_reader
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from generated.baxcloud.v1 import webhook_pb2
from server.conversion.handler import ConversionHandler, Workshop
from server.domain.media import TRANSCODE_FAILED, MediaError
from server.ports.encoder import Encoder
from server.ports.fetch import DownloadError
from server.ports.storage import ObjectStorage, ObjectStore, StorageError, StorageTarget, StoredObject
from server.services.webhooks import WebhookService
from tests.conftest import Eventually
from tests.faults.worker_stage import COMPLETED, FAILED, STARTED, events_about, expected_keys
from tests.integration.conversion_stage import Stage, backend_stage, serving_file, source
from tests.media import Clip, ClipFactory

pytestmark = pytest.mark.timeout(180)

MOST_CALLS = 100


@dataclass
class FaultPoints:
    """Counts calls and raises at the `fatal`-th, or with `for_good` at that and all later ones."""

    fatal: int = 0
    for_good: bool = False
    retryable: bool = True
    calls: int = 0

    def arm(self, fatal: int) -> None:
        self.fatal, self.calls = fatal, 0

    def pass_by(self, make: Callable[[bool], Exception]) -> None:
        self.calls += 1
        if self.calls == self.fatal or (self.for_good and self.calls > self.fatal):
            raise make(self.retryable)


def storage_fault(retryable: bool) -> Exception:
    return StorageError("the storage is made to fail", retryable=retryable)


def media_fault(retryable: bool) -> Exception:
    return MediaError(TRANSCODE_FAILED, "the encoder is made to fail", retryable=retryable)


def download_fault(retryable: bool) -> Exception:
    return DownloadError("the source is made to fail")


class FailingStore:
    def __init__(self, store: ObjectStore, points: FaultPoints) -> None:
        self._store = store
        self._points = points

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        self._points.pass_by(storage_fault)
        await self._store.put_file(key, path, content_type=content_type)

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        self._points.pass_by(storage_fault)
        await self._store.put_bytes(key, data, content_type=content_type)

    async def get_bytes(self, key: str) -> bytes:
        self._points.pass_by(storage_fault)
        return await self._store.get_bytes(key)

    async def get_file(self, key: str, path: Path) -> None:
        self._points.pass_by(storage_fault)
        await self._store.get_file(key, path)

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        self._points.pass_by(storage_fault)
        return await self._store.list(folder)

    async def end_uploads(self, folder: str = "") -> None:
        self._points.pass_by(storage_fault)
        await self._store.end_uploads(folder)

    async def delete(self, keys: Iterable[str]) -> None:
        self._points.pass_by(storage_fault)
        await self._store.delete(keys)

    def url(self, key: str) -> str:
        return self._store.url(key)

    async def presign(self, key: str, expires_sec: int) -> str:
        return await self._store.presign(key, expires_sec)


class FailingStorage:
    def __init__(self, storage: ObjectStorage, points: FaultPoints) -> None:
        self._storage = storage
        self._points = points

    async def open(self, target: StorageTarget) -> ObjectStore:
        self._points.pass_by(storage_fault)
        return FailingStore(await self._storage.open(target), self._points)


class Failing:
    """Any other port: each of its coroutines fails before it begins."""

    def __init__(self, port: object, points: FaultPoints, fault: Callable[[bool], Exception]) -> None:
        self._port = port
        self._points = points
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **named: Any) -> Any:
            self._points.pass_by(self._fault)
            return await getattr(self._port, name)(*args, **named)

        return call


def failing(shop: Workshop, points: FaultPoints) -> Workshop:
    encoder: Encoder = Failing(shop.encoder, points, media_fault)
    return replace(
        shop,
        storage=FailingStorage(shop.storage, points),
        encoder=encoder,
        fetcher=Failing(shop.fetcher, points, download_fault),
        retry_delay_sec=0.01,
    )


@pytest.fixture
async def stage(data_dir: Path, eventually: Eventually) -> AsyncIterator[Stage]:
    async with backend_stage(data_dir, eventually, work=False) as stage:
        webhooks = stage.backend.services["WebhookService"]
        assert isinstance(webhooks, WebhookService)
        # Events are kept for endpoints only; nothing is sent to it here.
        request = webhook_pb2.CreateWebhookRequest(url="http://127.0.0.1:9/", events=["*"])
        await webhooks.create_webhook(request, stage.context())
        yield stage


async def check(stage: Stage, done: pb.ConversionJob, *, may_keep_objects: bool) -> None:
    """I1–I4: a whole ladder or none, one end told once, nothing left on this machine."""
    objects = stage.objects(done)
    told = await events_about(stage, done)
    if done.status == pb.ConversionJob.COMPLETED:
        assert told == [COMPLETED, STARTED]
        assert set(objects) | {"thumbnail.jpg"} == expected_keys(1)
        assert audit(directory_reader(objects["master.m3u8"].parent), renditions=["360p"]) == []
    else:
        assert told == [FAILED, STARTED]
        assert done.error_code in ("UPLOAD_FAILED", "TRANSCODE_FAILED", "DOWNLOAD_FAILED"), done
        assert done.error_message.endswith("made to fail")
        assert may_keep_objects or objects == {}
    await stage.eventually(lambda: stage.local_files() == [])


@pytest.mark.parametrize(
    ("retryable", "for_good"),
    [
        pytest.param(True, False, id="passing once"),
        pytest.param(False, False, id="permanent once"),
        pytest.param(True, True, id="passing without end"),
    ],
)
async def test_each_call_fails_in_its_turn(
    stage: Stage, clips: ClipFactory, *, retryable: bool, for_good: bool
) -> None:
    """Encoding-and-safety 2.7 and case 30: for n = 1, 2, 3 … until a job gets by without a fault."""
    points = FaultPoints(retryable=retryable, for_good=for_good)
    assert stage.backend.worker is not None
    handler = stage.backend.worker.handlers[0]
    assert isinstance(handler, ConversionHandler)
    await stage.backend.worker.engine.start_worker([ConversionHandler(failing(handler._shop, points))])
    ends = []
    async with source(serving_file(clips.clip(Clip(seconds=1)))) as url:
        for fatal in range(1, MOST_CALLS):
            points.arm(fatal)
            done = await stage.finish(await stage.convert(url))
            await check(stage, done, may_keep_objects=for_good)
            ends.append(done.status)
            if points.calls < fatal:
                break
    assert points.calls < points.fatal, "the sweep did not come to its end"
    # From opening the storage over fetching and encoding to the last look at what is there.
    assert len(ends) > 10
    assert ends[-1] == pb.ConversionJob.COMPLETED
    if retryable and not for_good:
        # All but the download, whose own tries were used up.
        assert ends.count(pb.ConversionJob.FAILED) == 1
    else:
        assert ends.count(pb.ConversionJob.FAILED) >= len(ends) - 3
