"""Uploads that go through the proxy of a request: what it sees, what it refuses, and what the guard says of it."""

from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from adapters.http.netguard import NetGuard, Purpose
from adapters.http.target import BadUrl
from adapters.storage.local import LocalObjects
from adapters.storage.proxy import Guard
from adapters.storage.s3_client import S3Options
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.domain.project import S3Config
from server.ids import ProjectId
from server.ports.storage import ObjectStore, Proxy, StorageError, StorageTarget
from tests.servers.s3 import S3Server, free_port
from tests.servers.versitygw import versitygw_server
from tests.servers.web_proxy import WebProxy, web_proxy

# versitygw is built on first use, which takes minutes.
pytestmark = pytest.mark.timeout(1000)
MIB = 1 << 20
OPTIONS = S3Options(part_size=5 * MIB, connect_timeout=2, read_timeout=5, attempts=1)
# Reserved for documentation: nothing answers there.
NOWHERE = "192.0.2.1"
SECRET = "p:ss/w@rd"


class Opening:
    """Stores whose endpoint is found nowhere but by the proxy."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._storages: list[Storage] = []
        self.asked: list[str] = []

    async def __call__(
        self, config: S3Config, proxy: Proxy, *, guard: Guard | None = None, options: S3Options = OPTIONS
    ) -> ObjectStore:
        signer = CapabilitySigner([b"k"])
        local = LocalObjects(self._root, public_url="http://127.0.0.1:1", signer=signer, clock=SystemClock())
        storage = Storage(local, guard=guard or self._guard, options=options)
        self._storages.append(storage)
        return await storage.open(StorageTarget(ProjectId("clp"), "EG_1", config, proxy=proxy))

    async def _guard(self, url: str) -> Sequence[str]:
        self.asked.append(url)
        return ["127.0.0.1"] if urlsplit(url).hostname == "proxy.example" else [NOWHERE]

    async def close(self) -> None:
        for storage in self._storages:
            await storage.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="module")
def tls_s3(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("tls-versitygw"), authority) as server:
        yield server


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncIterator[Opening]:
    opening = Opening(tmp_path / "objects")
    yield opening
    await opening.close()


@pytest.fixture
async def proxy() -> AsyncIterator[WebProxy]:
    async with web_proxy(WebProxy(f"me@home:{SECRET}", {"s3.example": "127.0.0.1"})) as running:
        yield running


def at(proxy: WebProxy, password: str = SECRET, *, scheme: str = "http") -> Proxy:
    return Proxy(f"{scheme}://proxy.example:{proxy.port}", "me@home", password)


def behind(server: S3Server, bucket: str) -> S3Config:
    """The bucket by a name that only the proxy knows."""
    return server.config(
        bucket=bucket,
        region=server.region,
        endpoint=server.endpoint.replace("127.0.0.1", "s3.example"),
    )


def options_of(server: S3Server) -> S3Options:
    return S3Options(
        part_size=5 * MIB, connect_timeout=2, read_timeout=5, attempts=1, ca_bundle=server.ca_bundle
    )


@pytest.mark.parametrize("encrypted", [False, True])
async def test_everything_goes_through_it(
    opening: Opening, proxy: WebProxy, tmp_path: Path, request: pytest.FixtureRequest, *, encrypted: bool
) -> None:
    """LK-103: one request, many parts, listing, reading, deleting; a tunnel for https, forwarding for http."""
    server: S3Server = request.getfixturevalue("tls_s3" if encrypted else "s3")
    bucket = server.new_bucket()
    store = await opening(behind(server, bucket), at(proxy), options=options_of(server))
    source = tmp_path / "big.mp4"
    source.write_bytes(b"b" * (12 * MIB))
    await store.put_bytes("a.json", b"{}", content_type="application/json")
    await store.put_file("big.mp4", source, content_type="video/mp4")
    assert [(one.key, one.size) for one in await store.list()] == [("a.json", 2), ("big.mp4", 12 * MIB)]
    assert await store.get_bytes("a.json") == b"{}"
    await store.delete(["a.json"])
    listed = server.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert [(one["Key"], one["Size"]) for one in listed] == [("big.mp4", 12 * MIB)]
    port = urlsplit(server.endpoint).port
    if encrypted:
        assert set(proxy.requests) == {f"CONNECT s3.example:{port}"}
        assert proxy.heads == []
    else:
        assert f"PUT http://s3.example:{port}/{bucket}/a.json" in proxy.requests
    # Its name was looked up by the guard and nobody else, and the connection went to what the guard said.
    assert f"http://proxy.example:{proxy.port}" in opening.asked


async def test_a_proxy_with_a_certificate(
    opening: Opening, s3: S3Server, authority: trustme.CA, tmp_path: Path
) -> None:
    """The login is told to nobody but who the certificate names, also where the storage itself is plain."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    options = S3Options(
        connect_timeout=2, read_timeout=5, attempts=1, ca_bundle=str(tmp_path / "authority.pem")
    )
    bucket = s3.new_bucket()
    for name in ("proxy.example", "other.example"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        known = WebProxy(f"me@home:{SECRET}", {"s3.example": "127.0.0.1"})
        async with web_proxy(known, context) as proxy:
            store = await opening(behind(s3, bucket), at(proxy, scheme="https"), options=options)
            if name == "proxy.example":
                await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
                assert proxy.heads
                continue
            with pytest.raises(StorageError, match="proxy's certificate is not valid"):
                await store.put_bytes("b.mp4", b"x", content_type="video/mp4")
            assert proxy.requests == []


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_wrong_login_is_said_without_it(
    opening: Opening,
    proxy: WebProxy,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    *,
    encrypted: bool,
) -> None:
    """LK-136: for good, naming the cause; neither log nor error holds the password."""
    caplog.set_level(logging.DEBUG)
    server: S3Server = request.getfixturevalue("tls_s3" if encrypted else "s3")
    wrong = "guessed-password"
    store = await opening(behind(server, server.new_bucket()), at(proxy, wrong), options=options_of(server))
    with pytest.raises(StorageError, match="upload: the proxy refuses its username and password") as refused:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert not refused.value.retryable
    assert proxy.requests
    shown = "".join(traceback.format_exception(refused.value)) + caplog.text
    assert wrong not in shown
    assert server.secret_key not in shown


async def test_a_proxy_that_does_not_let_through(opening: Opening, tls_s3: S3Server) -> None:
    """A rule of the proxy is for good, its trouble passes."""
    bucket = tls_s3.new_bucket()
    for status, passing in ((403, False), (503, True)):
        async with web_proxy(WebProxy(closed=status)) as proxy:
            own = Proxy(f"proxy.example:{proxy.port}")
            store = await opening(behind(tls_s3, bucket), own, options=options_of(tls_s3))
            with pytest.raises(StorageError, match=f"does not connect to the storage, HTTP {status}") as told:
                await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
            assert told.value.retryable is passing


async def test_a_proxy_that_is_down(opening: Opening, s3: S3Server) -> None:
    store = await opening(behind(s3, "calls"), Proxy(f"http://proxy.example:{free_port()}"))
    with pytest.raises(StorageError, match="upload: the proxy could not be reached") as failed:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert failed.value.retryable


async def test_the_login_may_stand_in_the_address(opening: Opening, s3: S3Server, proxy: WebProxy) -> None:
    """LK-134: as LiveKit takes it; the fields count first."""
    bucket = s3.new_bucket()
    for own in (
        Proxy(f"http://me%40home:p%3Ass%2Fw%40rd@proxy.example:{proxy.port}/"),
        Proxy(f"http://someone:else@proxy.example:{proxy.port}", "me@home", SECRET),
    ):
        store = await opening(behind(s3, bucket), own)
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
        assert SECRET not in repr(own)
        assert "p%3Ass" not in repr(own)


async def test_two_logins_share_no_connection(opening: Opening, s3: S3Server, proxy: WebProxy) -> None:
    """A client that is kept for one caller must not lend its way to another."""
    bucket = s3.new_bucket()
    store = await opening(behind(s3, bucket), at(proxy))
    await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    other = await opening(behind(s3, bucket), at(proxy, "other"))
    with pytest.raises(StorageError, match="the proxy refuses"):
        await other.put_bytes("b.mp4", b"x", content_type="video/mp4")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"])
async def test_a_proxy_inside_our_network_is_refused(opening: Opening, proxy: WebProxy, host: str) -> None:
    """Design 13: the real guard, before anything is sent; an address for good, a name may be another one later."""

    async def guard(url: str) -> Sequence[str]:
        if urlsplit(url).hostname == "s3.example":
            return [NOWHERE]
        return (await NetGuard().resolve(url, Purpose.STORAGE)).addresses

    config = S3Config(bucket="b", endpoint="http://s3.example", access_key="a", secret_key="s")
    own = Proxy(f"http://{host}:{proxy.port}", "me@home", SECRET)
    with pytest.raises(StorageError, match="proxy's address is not allowed or cannot be reached") as refused:
        await opening(config, own, guard=guard)
    assert refused.value.retryable is (host == "localhost")
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert proxy.requests == []


@pytest.mark.parametrize("encrypted", [False, True])
async def test_the_guard_is_asked_again_for_each_connection(
    opening: Opening, proxy: WebProxy, request: pytest.FixtureRequest, *, encrypted: bool
) -> None:
    """A proxy's name that leads elsewhere a moment later leads nowhere; it may lead back, so it is tried again."""
    server: S3Server = request.getfixturevalue("tls_s3" if encrypted else "s3")
    found = ["8.8.8.8"]

    async def lookup(host: str) -> Sequence[str]:
        return found if host == "proxy.example" else ["8.8.4.4"]

    net = NetGuard(lookup=lookup)

    async def guard(url: str) -> Sequence[str]:
        return (await net.resolve(url, Purpose.STORAGE)).addresses

    bucket = server.new_bucket()
    store = await opening(behind(server, bucket), at(proxy), guard=guard, options=options_of(server))
    found[:] = ["127.0.0.1"]
    said = "upload: the proxy's address is not allowed or cannot be reached"
    with pytest.raises(StorageError, match=said) as refused:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert refused.value.retryable
    assert proxy.requests == []


async def test_a_guard_that_refuses_for_good(opening: Opening, proxy: WebProxy, s3: S3Server) -> None:
    """What can never be reached is not tried again."""
    answers = iter([["127.0.0.1"]])

    async def guard(url: str) -> Sequence[str]:
        if urlsplit(url).hostname == "s3.example":
            return [NOWHERE]
        found = next(answers, None)
        if found is None:
            raise BadUrl("must use one of the ports 80, 443")
        return found

    store = await opening(behind(s3, s3.new_bucket()), at(proxy), guard=guard)
    with pytest.raises(StorageError, match="proxy's address is not allowed") as refused:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert not refused.value.retryable
    assert proxy.requests == []
