"""The ObjectStore contract over the data directory, moto, a real S3 server, Azure's emulator and GCP's XML API."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette

from adapters.storage.cloud_client import CloudOptions
from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import S3Options
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.domain.project import S3Config
from server.ids import ProjectId
from server.ports.storage import ObjectStore, StorageError, StorageTarget
from server.transports.objects import object_routes
from tests.servers.cloud import Azurite, GcsLike, azurite_server, gcs_server
from tests.servers.http import bound_socket, fetch, serving
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server, free_port
from tests.servers.versitygw import versitygw_server

PROJECT = ProjectId("clproject")
MIB = 1 << 20
ODD_KEY = "a folder/naïve – 日本 +&?#%.ts"

Open = Callable[..., Awaitable[ObjectStore]]


Backend = S3Server | Azurite | GcsLike | None
_SERVERS: dict[str, Callable[[Path], AbstractContextManager[Backend]]] = {
    "moto": moto_server,
    "versitygw": versitygw_server,
    "azure": azurite_server,
    "gcs": gcs_server,
}
# versitygw is built and Azurite installed on first use, which takes minutes.
_SLOW = pytest.mark.timeout(1000)


@pytest.fixture(
    scope="module",
    params=[
        "local",
        "moto",
        pytest.param("versitygw", marks=_SLOW),
        pytest.param("azure", marks=_SLOW),
        "gcs",
    ],
)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "local":
        yield None
    else:
        with _SERVERS[request.param](folder) as server:
            yield server


async def unguarded(url: str) -> None:
    return None


def make_storage(
    root: Path, public_url: str, options: S3Options, cloud: CloudOptions | None = None
) -> tuple[Storage, LocalObjects]:
    signer = CapabilitySigner([b"test key"])
    local = LocalObjects(root / "objects", public_url=public_url, signer=signer, clock=SystemClock())
    return Storage(local, guard=unguarded, options=options, cloud=cloud), local


@pytest.fixture
async def open_store(backend: Backend, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens stores over one fresh bucket (or data directory); parts are 8 MiB."""
    listener = bound_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    cloud = backend.options if isinstance(backend, Azurite | GcsLike) else None
    storage, local = make_storage(tmp_path, url, S3Options(part_size=8 * MIB, read_timeout=20), cloud)
    bucket = backend.new_bucket() if backend else ""

    async def open_store(prefix: str = "", **changes: str) -> ObjectStore:
        target = StorageTarget(PROJECT, "cmjob", prefix=prefix)
        if isinstance(backend, S3Server):
            target = replace(target, s3=backend.config(**({"bucket": bucket} | changes)))
        elif backend is not None:
            target = replace(target, cloud=backend.place(**({"bucket": bucket} | changes)))
        return await storage.open(target)

    async with serving(Starlette(routes=object_routes(local)), listener):
        yield open_store
    await storage.close()


async def test_put_get_overwrite_and_delete(open_store: Open, tmp_path: Path) -> None:
    """VC-66, GN-12: what was put is there, once, until it is deleted; deleting twice is no error."""
    store = await open_store("videos/")
    source = tmp_path / "segment.ts"
    source.write_bytes(b"G" * 1880)
    await store.put_file("360p/segment_000.ts", source, content_type="video/mp2t")
    await store.put_bytes("master.m3u8", b"#EXTM3U\n", content_type="application/vnd.apple.mpegurl")
    assert await store.get_bytes("360p/segment_000.ts") == b"G" * 1880

    await store.put_bytes("master.m3u8", b"#EXTM3U\n#2\n", content_type="application/vnd.apple.mpegurl")
    assert await store.get_bytes("master.m3u8") == b"#EXTM3U\n#2\n"
    assert [(o.key, o.size) for o in await store.list()] == [
        ("360p/segment_000.ts", 1880),
        ("master.m3u8", 11),
    ]
    assert [o.key for o in await store.list("360p/")] == ["360p/segment_000.ts"]

    await store.delete(["360p/segment_000.ts", "master.m3u8", "never-there.ts"])
    await store.delete(["master.m3u8"])
    assert await store.list() == ()
    with pytest.raises(StorageError) as missing:
        await store.get_bytes("master.m3u8")
    assert not missing.value.retryable


async def test_the_same_file_again_is_an_overwrite(open_store: Open, tmp_path: Path) -> None:
    """A restarted job puts the same keys again; source and object may then be one file on disk."""
    store = await open_store()
    source = tmp_path / "segment.ts"
    source.write_bytes(b"one")
    await store.put_file("segment_000.ts", source, content_type="video/mp2t")
    await store.put_file("segment_000.ts", source, content_type="video/mp2t")
    assert [(o.key, o.size) for o in await store.list()] == [("segment_000.ts", 3)]
    source.unlink()
    assert await store.get_bytes("segment_000.ts") == b"one"


async def test_an_object_comes_back_as_a_file(open_store: Open, tmp_path: Path) -> None:
    """Whole, over what was there, without being read into memory; one that is missing leaves a permanent error."""
    store = await open_store("videos/")
    source = tmp_path / "recording.mp4"
    with source.open("wb") as out:
        for number in range(24):
            out.write(bytes([number]) * MIB)
    await store.put_file("recording.mp4", source, content_type="video/mp4")
    target = tmp_path / "input"
    target.write_bytes(b"left by an earlier attempt" * 100)
    tracemalloc.start()
    await store.get_file("recording.mp4", target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB
    assert target.read_bytes() == source.read_bytes()
    await store.put_bytes("empty", b"", content_type="video/mp4")
    await store.get_file("empty", target)
    assert target.read_bytes() == b""
    with pytest.raises(StorageError) as missing:
        await store.get_file("never-there", target)
    assert not missing.value.retryable


async def test_prefixes_are_apart(open_store: Open) -> None:
    """VC-17, B-34: keys are relative to the prefix, and no store sees another prefix's objects."""
    root, videos = await open_store(), await open_store("videos/")
    await root.put_bytes("master.m3u8", b"root", content_type="application/vnd.apple.mpegurl")
    await videos.put_bytes("master.m3u8", b"videos", content_type="application/vnd.apple.mpegurl")
    assert [o.key for o in await root.list()] == ["master.m3u8", "videos/master.m3u8"]
    assert [o.key for o in await videos.list()] == ["master.m3u8"]
    await videos.delete(["master.m3u8"])
    assert await root.get_bytes("master.m3u8") == b"root"


async def test_keys_with_spaces_and_unicode(open_store: Open) -> None:
    """VC-17, row 26: any text that passes the key rules comes back as it was, also through its address."""
    store = await open_store("ein Präfix/")
    await store.put_bytes(ODD_KEY, b"odd", content_type="video/mp2t")
    assert [o.key for o in await store.list()] == [ODD_KEY]
    assert await store.get_bytes(ODD_KEY) == b"odd"
    assert (await fetch(await store.presign(ODD_KEY, 60))).body == b"odd"
    await store.delete([ODD_KEY])
    assert await store.list() == ()


@pytest.mark.parametrize(
    "key", ["", "../x", "a/../../x", "a//b", "./a", "a\x00b", "a\\b", "/a", "a\nb", "x" * 256]
)
async def test_keys_outside_the_rules_are_refused(open_store: Open, key: str) -> None:
    """Row 26: nothing is written outside the prefix."""
    store = await open_store()
    with pytest.raises(StorageError) as refused:
        await store.put_bytes(key, b"x", content_type="video/mp2t")
    assert not refused.value.retryable
    assert await store.list() == ()


async def test_large_file_in_parts_with_bounded_memory(open_store: Open, tmp_path: Path) -> None:
    """VC-66: 24 MiB go up in 8 MiB parts that are streamed from disk, not read into memory."""
    store = await open_store("big/")
    source = tmp_path / "recording.mp4"
    with source.open("wb") as out:
        for number in range(24):
            out.write(bytes([number]) * MIB)
        out.write(b"end")
    tracemalloc.start()
    await store.put_file("recording.mp4", source, content_type="video/mp4")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB
    assert [(o.key, o.size) for o in await store.list()] == [("recording.mp4", 24 * MIB + 3)]
    assert await store.get_bytes("recording.mp4") == source.read_bytes()


async def test_large_files_leave_no_open_parts(backend: Backend, open_store: Open, tmp_path: Path) -> None:
    """Row 35: parts that a killed worker left open are gone once the same key is written again."""
    if not isinstance(backend, S3Server):
        pytest.skip("only S3 can list them, and the data directory has none")
    store = await open_store()
    bucket = urlsplit(store.url("x")).path.split("/")[1]
    client = backend.client()
    client.create_multipart_upload(Bucket=bucket, Key="recording.mp4")
    assert client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    source = tmp_path / "recording.mp4"
    source.write_bytes(b"r" * (9 * MIB))
    await store.put_file("recording.mp4", source, content_type="video/mp4")
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    client.close()


async def test_a_missing_source_file_is_a_storage_error(open_store: Open, tmp_path: Path) -> None:
    store = await open_store()
    with pytest.raises(StorageError) as missing:
        await store.put_file("a.ts", tmp_path / "none.ts", content_type="video/mp2t")
    assert not missing.value.retryable
    assert await store.list() == ()


async def test_presigned_address_fetches(open_store: Open) -> None:
    """The address gives the object with its content type and byte ranges, without a key."""
    store = await open_store("p/")
    await store.put_bytes("360p/segment_000.ts", b"0123456789", content_type="video/mp2t")
    url = await store.presign("360p/segment_000.ts", 60)
    whole = await fetch(url)
    part = await fetch(url, headers={"Range": "bytes=2-4"})
    assert (whole.status, whole.headers["content-type"], whole.body) == (200, "video/mp2t", b"0123456789")
    assert (part.status, part.body) == (206, b"234")


async def test_presigned_address_expires(backend: Backend, open_store: Open) -> None:
    """A presigned address is refused with 403 after its time."""
    if isinstance(backend, GcsLike) or (isinstance(backend, S3Server) and "moto" in backend.access_key):
        pytest.skip("moto does not check the expiry of presigned addresses")
    store = await open_store()
    await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    url = await store.presign("a.ts", 2)
    async with asyncio.timeout(20):
        while (answer := await fetch(url)).status == 200:  # noqa: ASYNC110 - the expiry is the server's own
            await asyncio.sleep(0.1)
    assert answer.status == 403


async def test_parallel_puts(open_store: Open) -> None:
    """Many segments at once, some of them in folders that a delete empties meanwhile."""
    store = await open_store()
    await asyncio.gather(
        *(store.put_bytes(f"a/{n}/segment.ts", b"%d" % n, content_type="video/mp2t") for n in range(24)),
        *(store.delete([f"a/{n}/other.ts"]) for n in range(24)),
    )
    assert len(await store.list("a/")) == 24


@pytest.fixture
def server(backend: Backend) -> S3Server:
    if not isinstance(backend, S3Server):
        pytest.skip("about S3 only")
    return backend


@pytest.mark.usefixtures("server")
class TestS3Only:
    """What only an S3 server can show."""

    async def test_content_type_and_cache_control_are_stored(
        self, server: S3Server, open_store: Open
    ) -> None:
        """A playlist that grows is cached for a second, finished media longer."""
        store = await open_store()
        growing = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
        await store.put_bytes("v.m3u8", growing, content_type="application/vnd.apple.mpegurl")
        await store.put_bytes("s.ts", b"G", content_type="video/mp2t")
        bucket = urlsplit(store.url("x")).path.split("/")[1]
        client = server.client()
        playlist, segment = (client.head_object(Bucket=bucket, Key=key) for key in ("v.m3u8", "s.ts"))
        client.close()
        assert playlist["ContentType"] == "application/vnd.apple.mpegurl"
        assert playlist["CacheControl"] == "public, max-age=1"
        assert (segment["ContentType"], segment["CacheControl"]) == ("video/mp2t", "public, max-age=3600")

    @pytest.mark.parametrize("region", ["", "auto", "us-east-1"])
    async def test_region_may_be_left_out(self, open_store: Open, region: str) -> None:
        """VC-15: without a region the client is built with `auto`."""
        store = await open_store(region=region)
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert await store.get_bytes("a.ts") == b"x"

    async def test_raw_address(self, server: S3Server, open_store: Open) -> None:
        """B-35, VC-20: path style for custom endpoints; a CDN base replaces host and bucket."""
        raw, cdn = await open_store("v/"), await open_store("v/", cdn_url="https://cdn.example.com/")
        assert raw.url("master.m3u8").startswith(f"{server.endpoint}/bucket-")
        assert raw.url("master.m3u8").endswith("/v/master.m3u8")
        assert cdn.url("master.m3u8") == "https://cdn.example.com/v/master.m3u8"

    async def test_missing_bucket(self, open_store: Open, tmp_path: Path) -> None:
        """VC-14: permanent, naming bucket and cause, showing no credentials."""
        store = await open_store(bucket="no-such-bucket")
        source = tmp_path / "big.mp4"
        source.write_bytes(b"b" * (9 * MIB))
        for attempt in (
            store.put_bytes("a.ts", b"x", content_type="video/mp2t"),
            store.put_file("big.mp4", source, content_type="video/mp4"),
            store.list(),
        ):
            with pytest.raises(StorageError, match=r"no-such-bucket: .*NoSuchBucket") as failed:
                await attempt
            assert not failed.value.retryable
            assert "secret" not in str(failed.value)

    async def test_wrong_key(self, server: S3Server, open_store: Open) -> None:
        """VC-18, VC-19: permanent; neither key appears."""
        if "moto" in server.access_key:
            pytest.skip("moto does not check signatures")
        store = await open_store(secret_key="wrong-secret-value")
        with pytest.raises(StorageError, match="SignatureDoesNotMatch") as failed:
            await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert not failed.value.retryable
        assert "wrong-secret-value" not in str(failed.value)
        assert server.access_key not in str(failed.value)

    async def test_presigned_for_at_most_a_week(self, open_store: Open) -> None:
        store = await open_store()
        url = await store.presign("a.ts", int(timedelta(days=30).total_seconds()))
        assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["604800"]

    async def test_listing_and_deleting_over_a_thousand(self, server: S3Server, open_store: Open) -> None:
        """Pages of a listing and batches of a deletion are joined."""
        if "moto" not in server.access_key:
            pytest.skip("once is enough")
        store = await open_store("many/")
        keys = [f"segment_{n:04d}.ts" for n in range(1050)]
        async with asyncio.timeout(100):
            for start in range(0, len(keys), 100):
                await asyncio.gather(
                    *(
                        store.put_bytes(key, b"x", content_type="video/mp2t")
                        for key in keys[start : start + 100]
                    )
                )
        assert [o.key for o in await store.list()] == keys
        await store.delete(keys)
        assert await store.list() == ()


async def test_server_that_is_down(tmp_path: Path) -> None:
    """A passing fault: retryable, naming the bucket."""
    storage, _ = make_storage(tmp_path, "http://127.0.0.1:1", S3Options(attempts=2, connect_timeout=2))
    s3 = S3Config("videos", endpoint=f"http://127.0.0.1:{free_port()}", access_key="key", secret_key="secret")
    store = await storage.open(StorageTarget(PROJECT, "cmjob", s3))
    with pytest.raises(StorageError, match=r"videos: .*could not be reached") as failed:
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    assert failed.value.retryable
    await storage.close()
