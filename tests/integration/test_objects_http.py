"""The data directory over HTTP: ranges, validators, CORS, expiry and what is not served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette

from adapters.storage.local import LocalObjects, LocalStore
from server.domain.objects import CapabilitySigner
from server.ids import ProjectId
from server.ports.storage import StorageTarget
from server.transports.objects import object_routes
from tests.servers.http import bound_socket, fetch, serving

PLAYLIST = "application/vnd.apple.mpegurl"


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def objects(tmp_path: Path, clock: SetClock) -> AsyncIterator[LocalObjects]:
    listener = bound_socket()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    served = LocalObjects(tmp_path / "objects", public_url=url, signer=CapabilitySigner([b"k"]), clock=clock)
    async with serving(Starlette(routes=object_routes(served)), listener):
        yield served


@pytest.fixture
async def store(objects: LocalObjects) -> LocalStore:
    opened = objects.store(StorageTarget(ProjectId("clproject"), "cmjob", None, "v/"))
    await opened.put_bytes("master.m3u8", b"#EXTM3U\n360p/playlist.m3u8\n", content_type=PLAYLIST)
    await opened.put_bytes("360p/playlist.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n", content_type=PLAYLIST)
    await opened.put_bytes("360p/segment_000.ts", b"0123456789", content_type="video/mp2t")
    return opened


async def test_relative_uris_work(store: LocalStore) -> None:
    """Design 13: the address ends in /master.m3u8, and what it names relatively is found below it."""
    url = store.url("master.m3u8")
    assert url.endswith("/v/master.m3u8")
    assert "//" not in url.removeprefix("http://")
    master = await fetch(url)
    assert (master.status, master.headers["content-type"]) == (200, PLAYLIST)
    base = url.removesuffix("master.m3u8")
    media = await fetch(base + "360p/playlist.m3u8")
    segment = await fetch(base + "360p/segment_000.ts")
    assert (media.status, segment.status) == (200, 200)
    assert segment.headers["content-type"] == "video/mp2t"


async def test_cors_and_headers(store: LocalStore) -> None:
    """A player on any page may read; nothing runs as a page on the API's origin."""
    answer = await fetch(store.url("360p/segment_000.ts"), headers={"Origin": "https://player.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-range" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    preflight = await fetch(store.url("360p/segment_000.ts"), method="OPTIONS")
    assert preflight.status == 204
    assert "range" in preflight.headers["access-control-allow-headers"]


async def test_head_and_ranges(store: LocalStore) -> None:
    url = store.url("360p/segment_000.ts")
    head = await fetch(url, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, "10", b"")
    assert head.headers["accept-ranges"] == "bytes"
    part = await fetch(url, headers={"Range": "bytes=2-4"})
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    tail = await fetch(url, headers={"Range": "bytes=-3"})
    assert (tail.status, tail.body) == (206, b"789")
    beyond = await fetch(url, headers={"Range": "bytes=10-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */10")


async def test_validators(store: LocalStore) -> None:
    """If-Range gives the part of the version known, the whole of another; If-None-Match gives 304."""
    for key in ("360p/segment_000.ts", "master.m3u8"):
        url = store.url(key)
        etag = (await fetch(url)).headers["etag"]
        same = await fetch(url, headers={"If-None-Match": f'"x", {etag}'})
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
        assert (await fetch(url, headers={"If-None-Match": '"x"'})).status == 200
    url = store.url("360p/segment_000.ts")
    etag = (await fetch(url)).headers["etag"]
    assert (await fetch(url, headers={"Range": "bytes=0-1", "If-Range": etag})).status == 206
    assert (await fetch(url, headers={"Range": "bytes=0-1", "If-Range": '"x"'})).status == 200


async def test_caching(store: LocalStore) -> None:
    """Playlists are asked for again while they grow; segments are kept."""
    growing = await fetch(store.url("360p/playlist.m3u8"))
    assert growing.headers["cache-control"] == "public, max-age=1"
    await store.put_bytes(
        "360p/playlist.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-ENDLIST\n", content_type=PLAYLIST
    )
    ended = await fetch(store.url("360p/playlist.m3u8"))
    assert ended.headers["cache-control"] == "public, max-age=60"
    assert ended.headers["etag"] != growing.headers["etag"]
    assert "immutable" in (await fetch(store.url("360p/segment_000.ts"))).headers["cache-control"]


async def test_all_that_is_wrong_looks_alike(store: LocalStore, objects: LocalObjects) -> None:
    """Missing, foreign, forged and escaping addresses give the same 404, byte for byte."""
    url = store.url("master.m3u8")
    origin, capability = url.split("/o/")[0], url.split("/o/")[1].split("/")[0]
    other = objects.store(StorageTarget(ProjectId("clother"), "cmother", None))
    await other.put_bytes("secret.ts", b"secret", content_type="video/mp2t")
    expected = await fetch(f"{origin}/o/{capability}/v/none.ts")
    assert expected.status == 404
    assert expected.headers["cache-control"] == "no-store"
    for path in (
        "v",
        "v/",
        "v/360p",
        "secret.ts",
        "../../clother/cmother/secret.ts",
        "..%2F..%2Fclother%2Fcmother%2Fsecret.ts",
        "v/..%2f..%2f..%2fclother/cmother/secret.ts",
        "%2Fetc%2Fpasswd",
        "/etc/passwd",
        "v%00/master.m3u8",
        "v/master.m3u8%00.ts",
        "v%5Cmaster.m3u8",
        "v//master.m3u8",
        "%ff.ts",
        "x" * 300,
    ):
        answer = await fetch(f"{origin}/o/{capability}/{path}")
        assert (path, answer.status, answer.body) == (path, 404, expected.body)
    for forged in (capability[:-1], capability + "A", "clother" + capability[9:], "a.b.c", "..", "x" * 5000):
        answer = await fetch(f"{origin}/o/{forged}/v/master.m3u8")
        assert (forged, answer.status) == (forged, 404)


async def test_links_out_of_the_folder_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    """Should a symbolic link ever get into the folder, it leads nowhere."""
    (tmp_path / "outside.ts").write_bytes(b"outside")
    folder = tmp_path / "objects" / "clproject" / "cmjob" / "v"
    (folder / "link.ts").symlink_to(tmp_path / "outside.ts")
    (folder / "linked").symlink_to(tmp_path)
    assert (await fetch(store.url("link.ts"))).status == 404
    assert (await fetch(store.url("linked/outside.ts"))).status == 404


async def test_an_expiring_address(store: LocalStore, clock: SetClock) -> None:
    """`download-url`: 403 after its time, and the expiry can't be cut out of it; plain addresses go on."""
    url = await store.presign("master.m3u8", 60)
    assert (await fetch(url)).status == 200
    origin, rest = url.split("/o/")
    capability, _, key = rest.partition("/")
    project, scope, _, mac = capability.split(".")
    assert (await fetch(f"{origin}/o/{project}.{scope}.{mac}/{key}")).status == 404
    assert (await fetch(f"{origin}/o/{project}.{scope}.99999999999.{mac}/{key}")).status == 404
    clock.time += timedelta(seconds=61)
    expired = await fetch(url)
    assert (expired.status, expired.headers["cache-control"]) == (403, "no-store")
    assert (await fetch(store.url("master.m3u8"))).status == 200


async def test_addresses_live_as_long_as_the_objects(store: LocalStore, tmp_path: Path) -> None:
    """Deleting the objects ends their addresses and leaves no empty folders."""
    url = store.url("master.m3u8")
    await store.delete([item.key for item in await store.list()])
    assert (await fetch(url)).status == 404
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [".tmp"]


async def test_a_playlist_replaced_while_it_is_read_is_never_torn(store: LocalStore) -> None:
    """Readers see one whole version, whatever the writer does meanwhile."""
    import asyncio

    versions = [b"#EXTM3U\n" + bytes([65 + n]) * (n * 5000) for n in range(12)]
    stop = asyncio.Event()
    seen = 0

    async def read() -> None:
        nonlocal seen
        while not stop.is_set():
            answer = await fetch(store.url("master.m3u8"))
            assert answer.status == 200
            assert answer.body in versions or answer.body.startswith(b"#EXTM3U\n360p")
            seen += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        for _ in range(5):
            for version in versions:
                await store.put_bytes("master.m3u8", version, content_type=PLAYLIST)
        stop.set()
    assert seen > 0
