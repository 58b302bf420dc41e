"""What Azure and GCP storages do when something is wrong: with the request, the network, or on the way."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from adapters.storage.cloud_client import CloudOptions
from adapters.storage.local import LocalObjects
from adapters.storage.proxy import Guard
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.errors import invalid
from server.ids import ProjectId
from server.ports.storage import AzureContainer, GcsBucket, ObjectStore, Proxy, StorageError, StorageTarget
from tests.conftest import Eventually
from tests.servers.cloud import (
    ACCOUNT,
    Azurite,
    GcsLike,
    azurite_server,
    gcs_server,
    service_account,
)
from tests.servers.s3 import free_port
from tests.servers.s3_faults import Fault, FaultProxy, error, fault_proxy
from tests.servers.web_proxy import WebProxy, web_proxy

# Azurite is installed on first use, which takes minutes.
pytestmark = pytest.mark.timeout(1000)
MIB = 1 << 20
FAST = CloudOptions(part_size=5 * MIB, connect_timeout=2, timeout=10, first_pause=0.01, longest_pause=0.05)
SECRET = base64.b64encode(b"a key that nobody may ever see").decode()


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite_server(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsLike]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture
async def proxy(azurite: Azurite) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(azurite.endpoint, keeps_host=True) as running:
        yield running


async def unguarded(url: str) -> None:
    return None


async def opened(
    root: Path, cloud: AzureContainer | GcsBucket, options: CloudOptions = FAST, guard: Guard = unguarded
) -> ObjectStore:
    signer = CapabilitySigner([b"test key"])
    local = LocalObjects(root, public_url="http://127.0.0.1", signer=signer, clock=SystemClock())
    storage = Storage(local, guard=guard, cloud=options)
    return await storage.open(StorageTarget(ProjectId("clproject"), "cmjob", prefix="p/", cloud=cloud))


def behind(proxy: FaultProxy) -> CloudOptions:
    return replace(FAST, azure_endpoint=f"{proxy.endpoint}/{ACCOUNT}")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (AzureContainer("", "recordings", SECRET), "account_name and account_key are required"),
        (AzureContainer("acc", "recordings", ""), "account_name and account_key are required"),
        (AzureContainer("evil.example/#", "recordings", SECRET), "not the name of a storage account"),
        (AzureContainer("acc", "../other", SECRET), "not the name of a container"),
        (AzureContainer("acc", "recordings", f"{SECRET}!"), "account_key is not base64"),
        (GcsBucket("recordings", ""), "credentials are required"),
        (GcsBucket("recordings", SECRET), "not JSON"),
        (GcsBucket("a/../b", service_account()), "not the name of a bucket"),
        (
            GcsBucket("recordings", json.dumps({"type": "authorized_user", "refresh_token": SECRET})),
            "not those of a service account",
        ),
        (
            GcsBucket("recordings", json.dumps({"type": "service_account", "private_key": SECRET})),
            "lack client_email",
        ),
        (
            GcsBucket(
                "recordings",
                json.dumps(
                    {**json.loads(service_account()), "private_key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"}
                ),
            ),
            "the credentials cannot be used",
        ),
        (GcsBucket("recordings", service_account(), Proxy("socks5://proxy")), "must start with http"),
        (GcsBucket("recordings", service_account(), Proxy("http://proxy:port")), "cannot be read"),
        (
            GcsBucket("recordings", service_account(), Proxy(f"https://me:{SECRET.rstrip('=')}@proxy:3128")),
            "GCP bucket recordings: proxy url: it must start with http://",
        ),
    ],
)
async def test_a_place_that_cannot_be(tmp_path: Path, place: AzureContainer | GcsBucket, words: str) -> None:
    """LK-104, LK-105, LK-106, LK-107, LK-108, LK-109: refused for good before anything is sent, with what is wrong and no secret."""
    with pytest.raises(StorageError, match=words) as refused:
        await opened(tmp_path, place)
    assert not refused.value.retryable
    assert SECRET.rstrip("=") not in "".join(traceback.format_exception(refused.value))


def test_what_is_opened_shows_no_secret() -> None:
    """LK-104, LK-108, LK-136."""
    places = (
        AzureContainer("acc", "recordings", SECRET),
        GcsBucket("recordings", SECRET, Proxy("http://p", "me", SECRET)),
    )
    assert SECRET not in repr(places)


async def test_credentials_name_no_other_host(tmp_path: Path, gcs: GcsLike) -> None:
    """Row 26: the JSON of a caller may not send this server anywhere, nor switch its signature off."""
    astray = {"gcs_base_url": f"http://127.0.0.1:{free_port()}", "disable_oauth": True}
    credentials = json.dumps({**json.loads(service_account()), **astray})
    async with fault_proxy(gcs.s3.endpoint) as watched:
        options = replace(FAST, gcs_endpoint=watched.endpoint)
        store = await opened(tmp_path, GcsBucket(gcs.new_bucket(), credentials), options)
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
        assert await store.get_bytes("a.mp4") == b"x"
        assert watched.requests


async def test_the_servers_own_environment_is_not_used(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's keys and endpoints are not for whoever may send a request."""
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=2022-11-02&sig=operator")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    store = await opened(tmp_path, azurite.place(azurite.new_bucket()), azurite.options)
    await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert await store.get_bytes("a.mp4") == b"x"


async def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-92."""
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(StorageError, match=r"pip install baxcloud\[cloud\]") as refused:
        await opened(tmp_path, AzureContainer("acc", "recordings", SECRET))
    assert not refused.value.retryable


async def test_wrong_key_and_missing_container(tmp_path: Path, azurite: Azurite) -> None:
    """Both are for good, name the container and the cause, and show no key."""
    wrong = base64.b64encode(b"another key").decode()
    store = await opened(tmp_path, azurite.place(azurite.new_bucket(), wrong), azurite.options)
    with pytest.raises(
        StorageError, match=r"Azure container container-.*AuthorizationFailure.*HTTP 403"
    ) as denied:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert not denied.value.retryable
    assert wrong not in "".join(traceback.format_exception(denied.value))

    store = await opened(tmp_path, azurite.place("no-such-container"), azurite.options)
    source = tmp_path / "big.mp4"
    source.write_bytes(b"b" * (11 * MIB))
    for attempt in (
        store.put_bytes("a.mp4", b"x", content_type="video/mp4"),
        store.put_file("big.mp4", source, content_type="video/mp4"),
        store.list(),
        store.get_bytes("a.mp4"),
    ):
        with pytest.raises(
            StorageError, match=r"no-such-container: .*ContainerNotFound \(it does not exist\)"
        ) as gone:
            await attempt
        assert not gone.value.retryable


async def test_a_cloud_that_is_down(tmp_path: Path) -> None:
    options = replace(FAST, azure_endpoint=f"http://127.0.0.1:{free_port()}/acc", attempts=2)
    store = await opened(tmp_path, AzureContainer("acc", "recordings", SECRET), options)
    with pytest.raises(StorageError, match=r"recordings: upload: the storage could not be reached") as failed:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert failed.value.retryable


async def test_passing_faults_are_tried_again(tmp_path: Path, azurite: Azurite, proxy: FaultProxy) -> None:
    """livekit-surface.md 3.5: five attempts; then it is a passing fault for whoever called."""
    store = await opened(tmp_path, azurite.place(azurite.new_bucket()), behind(proxy))
    proxy.faults.append(Fault("PUT", times=4, reply=error(503, "ServerBusy")))
    await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert len(proxy.requests) == 5

    proxy.faults.append(Fault("PUT", times=99, reply=error(503, "ServerBusy")))
    with pytest.raises(StorageError, match="ServerBusy, HTTP 503") as failed:
        await store.put_bytes("b.mp4", b"x", content_type="video/mp4")
    assert failed.value.retryable
    assert len(proxy.requests) == 10


async def test_a_part_that_fails_fails_the_file(tmp_path: Path, azurite: Azurite, proxy: FaultProxy) -> None:
    """No object of a cut-off upload is ever seen; the next attempt writes it whole."""
    store = await opened(tmp_path, azurite.place(azurite.new_bucket()), behind(proxy))
    source = tmp_path / "big.mp4"
    source.write_bytes(b"b" * (12 * MIB))
    proxy.faults.append(Fault("comp=block&", times=99, skip=1, reply=error(500, "InternalError")))
    with pytest.raises(StorageError, match="HTTP 500") as failed:
        await store.put_file("big.mp4", source, content_type="video/mp4")
    assert failed.value.retryable
    assert await store.list() == ()
    proxy.faults.clear()
    await store.put_file("big.mp4", source, content_type="video/mp4")
    assert [(one.key, one.size) for one in await store.list("big.mp4")] == [("big.mp4", 12 * MIB)]


async def test_a_cancelled_upload_writes_nothing_later(
    tmp_path: Path, azurite: Azurite, proxy: FaultProxy, eventually: Eventually
) -> None:
    """A job that lost its lease must not put its file over its successor's."""
    store = await opened(tmp_path, azurite.place(azurite.new_bucket()), behind(proxy))
    source = tmp_path / "big.mp4"
    source.write_bytes(b"b" * (12 * MIB))
    proxy.faults.append(Fault("comp=block&", times=1, skip=1, hang=True))
    upload = asyncio.create_task(store.put_file("big.mp4", source, content_type="video/mp4"))
    await proxy.hanging.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    proxy.released.set()
    assert await store.list() == ()
    assert not [line for line in proxy.requests if "comp=blocklist" in line]


async def test_names_that_begin_alike(tmp_path: Path, azurite: Azurite, gcs: GcsLike) -> None:
    """A listing of one key finds it, also among others; the clouds' client lists whole folders only."""
    for server in (azurite, gcs):
        store = await opened(tmp_path, server.place(server.new_bucket()), server.options)
        keys = ["a/call", "a/call.json", "a/call.mp4", "a/call.mp4/x", "a/d.mp4", "b", "call"]
        for key in keys:
            await store.put_bytes(key, b"x", content_type="video/mp4")
        for start in ("a/call.mp4", "a/c", "a/call", "a/", "a", "b", "c", "", "z"):
            assert [one.key for one in await store.list(start)] == [
                key for key in keys if key.startswith(start)
            ]


async def test_content_type_and_cache_control_are_stored(tmp_path: Path, gcs: GcsLike) -> None:
    bucket = gcs.new_bucket()
    store = await opened(tmp_path, gcs.place(bucket), gcs.options)
    source = tmp_path / "index.m3u8"
    source.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n")
    await store.put_file("index.m3u8", source, content_type="application/vnd.apple.mpegurl")
    client = gcs.s3.client()
    head = client.head_object(Bucket=bucket, Key="p/index.m3u8")
    client.close()
    assert (head["ContentType"], head["CacheControl"]) == (
        "application/vnd.apple.mpegurl",
        "public, max-age=1",
    )


async def test_locations(tmp_path: Path) -> None:
    """livekit-surface.md 3.5; Azure's with its container, without which they would lead nowhere."""
    azure = await opened(tmp_path, AzureContainer("acc", "recordings", SECRET))
    gcp = await opened(tmp_path, GcsBucket("recordings", service_account()))
    assert azure.url("a b.mp4") == "https://acc.blob.core.windows.net/recordings/p/a%20b.mp4"
    assert gcp.url("a b.mp4") == "https://recordings.storage.googleapis.com/p/a%20b.mp4"


async def test_gcp_addresses_are_signed_for_a_week_at_most(tmp_path: Path) -> None:
    """Google's V4 signing, checked with the public key: the storage does the same."""
    store = await opened(tmp_path, GcsBucket("recordings", service_account()))
    address = urlsplit(await store.presign("a folder/naïve – 日本 +&?#%.ts", 30 * 24 * 3600))
    assert address.netloc == "storage.googleapis.com"
    assert unquote(address.path) == "/recordings/p/a folder/naïve – 日本 +&?#%.ts"
    query = {name: value for name, (value,) in parse_qs(address.query).items()}
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    assert query["X-Goog-Expires"] == "604800"
    email, _, scope = query["X-Goog-Credential"].partition("/")
    assert email == json.loads(service_account())["client_email"]
    assert (
        abs(
            datetime.strptime(query["X-Goog-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
            - datetime.now(UTC).timestamp()
        )
        < 600
    )
    signed_query = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
    request = f"GET\n{address.path}\n{signed_query}\nhost:{address.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(request.encode())
    text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest.finalize().hex()}"
    key = serialization.load_pem_private_key(json.loads(service_account())["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())


async def test_gcp_through_a_proxy(tmp_path: Path, gcs: GcsLike) -> None:
    """LK-106, LK-134, LK-135, LK-136: its address is vetted, its password is sent to it and shown nowhere."""
    seen: list[bytes] = []
    asked: list[str] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def guard(url: str) -> tuple[str, ...]:
        asked.append(url)
        return ("127.0.0.1",)

    listener = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    place = GcsBucket(
        gcs.new_bucket(), service_account(), Proxy(f"http://proxy.invalid:{port}", "me@home", "p:ss/w@rd")
    )
    store = await opened(tmp_path, place, gcs.options, guard)
    with pytest.raises(StorageError, match="HTTP 407") as refused:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    listener.close()
    assert asked == [f"http://proxy.invalid:{port}"]
    assert "p:ss/w@rd" not in "".join(traceback.format_exception(refused.value))
    login = base64.b64encode(b"me@home:p:ss/w@rd")
    assert b"Basic " + login in seen[0]
    assert seen[0].startswith(f"PUT {gcs.s3.endpoint}/".encode())


async def test_a_tunnel_that_a_proxy_refuses(tmp_path: Path) -> None:
    """LK-136: as with a real GCP, which is encrypted: the cause is said, for good and without the password."""
    async with web_proxy(WebProxy("me:open")) as running:
        own = Proxy(f"http://127.0.0.1:{running.port}", "me", "guessed-password")
        options = replace(FAST, gcs_endpoint="https://gcs.example", attempts=2)
        store = await opened(tmp_path, GcsBucket("recordings", service_account(), own), options)
        with pytest.raises(StorageError, match="the proxy refuses its username and password") as refused:
            await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
        assert not refused.value.retryable
        assert "guessed-password" not in "".join(traceback.format_exception(refused.value))
        assert set(running.requests) == {"CONNECT gcs.example:443"}


async def test_a_proxy_inside_our_network_is_refused(tmp_path: Path) -> None:
    async def guard(url: str) -> None:
        raise invalid("url", "this address is not allowed")

    with pytest.raises(StorageError, match="proxy's address is not allowed") as refused:
        await opened(
            tmp_path, GcsBucket("recordings", service_account(), Proxy("http://10.0.0.1:3128")), FAST, guard
        )
    assert not refused.value.retryable


async def test_an_object_that_changes_meanwhile_is_not_mixed(
    tmp_path: Path, azurite: Azurite, proxy: FaultProxy
) -> None:
    """A file that is fetched in several requests is one version, or none."""
    store = await opened(tmp_path, azurite.place(azurite.new_bucket()), behind(proxy))
    source = tmp_path / "big.mp4"
    source.write_bytes(b"1" * (7 * MIB))
    await store.put_file("big.mp4", source, content_type="video/mp4")
    proxy.faults.append(Fault("GET", times=1, skip=1, late=True))
    fetching = asyncio.create_task(store.get_file("big.mp4", tmp_path / "fetched"))
    await proxy.hanging.wait()
    source.write_bytes(b"2" * (7 * MIB))
    await store.put_file("big.mp4", source, content_type="video/mp4")
    proxy.released.set()
    with pytest.raises(StorageError, match="HTTP 412"):
        await fetching
