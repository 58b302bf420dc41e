"""S3 that is slow, wrong, gone or hostile (encoding-and-safety rows 33–35, 17–19 for storage endpoints)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.http.netguard import NetGuard, Purpose
from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import AddressGuard, S3Options
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.domain.project import S3Config
from server.errors import Code, ServiceError, invalid
from server.ids import ProjectId
from server.ports.storage import ObjectStore, StorageError, StorageTarget
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, FaultProxy, error, fault_proxy

MIB = 1 << 20
# Patient: what is counted here must not be tried again because the machine stalled.
OPTIONS = S3Options(part_size=5 * MIB, connect_timeout=10, read_timeout=15, attempts=3)
# Where a request is never answered.
HASTY = replace(OPTIONS, read_timeout=1.5)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
async def proxy(moto: S3Server) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(moto.endpoint) as running:
        yield running


async def allow_all(url: str) -> None:
    return None


class Opener:
    """Opens stores for one test and closes them at its end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._storages: list[Storage] = []

    async def __call__(
        self,
        s3: S3Config,
        *,
        guard: AddressGuard = allow_all,
        options: S3Options = OPTIONS,
        trusted: bool = False,
    ) -> ObjectStore:
        signer = CapabilitySigner([b"k"])
        local = LocalObjects(self._root, public_url="http://127.0.0.1:1", signer=signer, clock=SystemClock())
        storage = Storage(local, guard=guard, options=options)
        self._storages.append(storage)
        return await storage.open(StorageTarget(ProjectId("clp"), "cmjob", s3, trusted=trusted))

    async def close(self) -> None:
        for storage in self._storages:
            await storage.close()


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[Opener]:
    opener = Opener(tmp_path / "objects")
    yield opener
    await opener.close()


@pytest.fixture
def config(moto: S3Server, proxy: FaultProxy) -> S3Config:
    return moto.config(bucket=moto.new_bucket(), endpoint=proxy.endpoint)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.mp4"
    path.write_bytes(b"".join(bytes([n]) * MIB for n in range(12)))
    return path


def open_uploads(moto: S3Server, config: S3Config) -> int:
    client = moto.client()
    uploads = client.list_multipart_uploads(Bucket=config.bucket).get("Uploads", [])
    client.close()
    return len(uploads)


async def test_a_download_goes_on_where_it_broke_off(
    open_store: Opener, config: S3Config, proxy: FaultProxy, big: Path, tmp_path: Path
) -> None:
    """Only what is missing is asked for again; when it breaks off every time, the fault is a passing one."""
    store = await open_store(config)
    await store.put_file("big.mp4", big, content_type="video/mp4")
    proxy.faults.append(Fault("GET", times=2, cut=5 * MIB))
    target = tmp_path / "input"
    await store.get_file("big.mp4", target)
    assert target.read_bytes() == big.read_bytes()
    assert sum(line.startswith("GET") and line.endswith("/big.mp4") for line in proxy.requests) == 3
    proxy.faults.append(Fault("GET", times=99, cut=2000))
    with pytest.raises(StorageError, match="broke off again and again") as failed:
        await store.get_file("big.mp4", target)
    assert failed.value.retryable


async def test_slow_down_is_waited_out(open_store: Opener, config: S3Config, proxy: FaultProxy) -> None:
    """Row 34: 503 SlowDown twice, then done."""
    proxy.faults.append(Fault("PUT", times=2, reply=error(503, "SlowDown")))
    store = await open_store(config)
    await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    assert await store.get_bytes("a.ts") == b"x"
    assert sum(line.startswith("PUT") for line in proxy.requests) == 3


async def test_slow_down_for_ever_is_a_passing_fault(
    open_store: Opener, config: S3Config, proxy: FaultProxy
) -> None:
    """Row 34: after all attempts a retryable error names bucket and cause."""
    proxy.faults.append(Fault("PUT", times=99, reply=error(503, "SlowDown")))
    store = await open_store(config)
    with pytest.raises(StorageError, match=rf"{config.bucket}: upload: SlowDown") as failed:
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    assert failed.value.retryable


async def test_a_hang_ends(open_store: Opener, config: S3Config, proxy: FaultProxy) -> None:
    """Row 34: one request that is never answered is tried again; if all hang, the fault is a passing one."""
    proxy.faults.append(Fault("PUT", hang=True))
    store = await open_store(config, options=HASTY)
    await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    proxy.faults.append(Fault("GET", times=99, hang=True))
    with pytest.raises(StorageError, match="no answer from the storage in time") as failed:
        await store.get_bytes("a.ts")
    assert failed.value.retryable


@contextlib.contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """What is open stays open; every further one is EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("content_type", ["video/mp4", "application/vnd.apple.mpegurl"])
async def test_a_source_file_that_cannot_be_read_now(
    open_store: Opener, config: S3Config, big: Path, content_type: str
) -> None:
    """Section 2.6: trouble of this machine passes, so the upload is worth another try; a missing file is not."""
    store = await open_store(config)
    # A playlist of one part is read at once, anything else part by part.
    small = big.with_name("small")
    small.write_bytes(bytes(MIB))
    with no_file_can_be_opened(), pytest.raises(StorageError, match="Too many open files") as failed:
        await store.put_file("a", small, content_type=content_type)
    assert failed.value.retryable
    with pytest.raises(StorageError, match="No such file") as failed:
        await store.put_file("a", small.with_name("none"), content_type=content_type)
    assert not failed.value.retryable
    await store.put_file("a", small, content_type=content_type)
    assert [item.size for item in await store.list()] == [MIB]


async def test_access_denied_midway(
    open_store: Opener, config: S3Config, proxy: FaultProxy, moto: S3Server, big: Path
) -> None:
    """Row 34, 35: 403 in the second part fails with its code, and nothing of the upload is left."""
    proxy.faults.append(Fault("partNumber=2", times=99, reply=error(403, "AccessDenied")))
    store = await open_store(config)
    with pytest.raises(StorageError, match=r"AccessDenied \(access denied\), HTTP 403") as failed:
        await store.put_file("big.mp4", big, content_type="video/mp4")
    assert not failed.value.retryable
    assert open_uploads(moto, config) == 0
    assert await store.list() == ()


async def test_complete_answers_200_with_an_error(
    open_store: Opener, config: S3Config, proxy: FaultProxy, big: Path
) -> None:
    """Row 34: an error inside a 200 is an error, and is tried again."""
    proxy.faults.append(Fault("POST /", skip=1, reply=error(200, "InternalError")))
    store = await open_store(config)
    await store.put_file("big.mp4", big, content_type="video/mp4")
    assert await store.get_bytes("big.mp4") == big.read_bytes()


async def test_lost_answer_to_complete(
    open_store: Opener, config: S3Config, proxy: FaultProxy, moto: S3Server, big: Path
) -> None:
    """Row 34: the retry finds no upload any more; the object is there, so it is done, once."""
    proxy.faults.append(Fault("POST /", skip=1, lose=True))
    proxy.faults.append(Fault("POST /", skip=1, reply=error(404, "NoSuchUpload")))
    store = await open_store(config)
    await store.put_file("big.mp4", big, content_type="video/mp4")
    assert any(line.startswith("HEAD") for line in proxy.requests)
    assert await store.get_bytes("big.mp4") == big.read_bytes()
    assert open_uploads(moto, config) == 0


async def test_no_such_upload_without_the_object(
    open_store: Opener, config: S3Config, proxy: FaultProxy, big: Path
) -> None:
    """Row 34: an upload that vanished without leaving the object is not taken for done."""
    proxy.faults.append(Fault("POST /", skip=1, times=99, reply=error(404, "NoSuchUpload")))
    store = await open_store(config)
    with pytest.raises(StorageError):
        await store.put_file("big.mp4", big, content_type="video/mp4")
    assert await store.list() == ()


async def test_a_lost_answer_to_a_put_is_repeated(
    open_store: Opener, config: S3Config, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The same bytes go up again from the start of the file."""
    source = tmp_path / "s.ts"
    source.write_bytes(b"G" * 300_000)
    proxy.faults.append(Fault("PUT", lose=True))
    store = await open_store(config)
    await store.put_file("s.ts", source, content_type="video/mp2t")
    assert await store.get_bytes("s.ts") == source.read_bytes()


async def test_clock_skew_says_so(open_store: Opener, config: S3Config, proxy: FaultProxy) -> None:
    """Row 34: told clearly and retryable, so that a later run signs anew."""
    proxy.faults.append(Fault("PUT", times=99, reply=error(403, "RequestTimeTooSkewed")))
    store = await open_store(config)
    with pytest.raises(StorageError, match="clocks") as failed:
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    assert failed.value.retryable


async def test_a_download_that_breaks_off(open_store: Opener, config: S3Config, proxy: FaultProxy) -> None:
    """Fewer bytes than announced are an error, not a short object."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
    torn = reply.replace(b"Content-Length: 2", b"Content-Length: 99")
    store = await open_store(config)
    proxy.faults.append(Fault("GET", reply=torn, times=1))
    with pytest.raises(StorageError) as failed:
        await store.get_bytes("a.ts")
    assert failed.value.retryable


async def test_batch_delete_that_the_storage_lacks(
    open_store: Opener, config: S3Config, proxy: FaultProxy
) -> None:
    """VC-74: storages without DeleteObjects are cleaned one by one."""
    store = await open_store(config)
    await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
    proxy.faults.append(Fault("POST", reply=error(501, "NotImplemented"), times=99))
    await store.delete(["a.ts"])
    assert await store.list() == ()


async def test_cancelling_an_upload_leaves_nothing(
    open_store: Opener, config: S3Config, proxy: FaultProxy, moto: S3Server, big: Path
) -> None:
    """A job that lost its ownership stops its upload: no object, no open parts."""
    proxy.faults.append(Fault("partNumber=2", hang=True, times=99))
    store = await open_store(config, options=HASTY)
    task = asyncio.create_task(store.put_file("big.mp4", big, content_type="video/mp4"))
    async with asyncio.timeout(20):
        await proxy.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert open_uploads(moto, config) == 0
    assert await store.list() == ()


async def test_a_cancelled_call_is_not_tried_again(
    open_store: Opener, config: S3Config, proxy: FaultProxy
) -> None:
    """A worker that lost its job writes nothing later: the one request under way ends by its time limit."""
    proxy.faults.append(Fault("PUT", hang=True, times=99))
    store = await open_store(config, options=HASTY)
    task = asyncio.create_task(store.put_bytes("a.ts", b"x", content_type="video/mp2t"))
    async with asyncio.timeout(20):
        await proxy.hanging.wait()
        task.cancel()
        # Returns only when the thread has ended, retries and all.
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(proxy.requests) == 1


async def test_a_hanging_storage_holds_up_no_other(
    open_store: Opener, config: S3Config, proxy: FaultProxy, moto: S3Server
) -> None:
    """All threads of one endpoint are stuck; another endpoint's upload goes through meanwhile."""
    stuck = await open_store(config, options=HASTY)
    proxy.faults.append(Fault("PUT", hang=True, times=99))
    tasks = [
        asyncio.create_task(stuck.put_bytes(f"{n}.ts", b"x", content_type="video/mp2t")) for n in range(12)
    ]
    async with asyncio.timeout(20):
        await proxy.hanging.wait()
        free = await open_store(moto.config(bucket=config.bucket))
        await free.put_bytes("free.ts", b"x", content_type="video/mp2t")
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestGuard:
    """Endpoints that come with a request are dialled only where the guard says (design section 13)."""

    async def test_connects_to_the_vetted_address_only(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy
    ) -> None:
        """The name resolves nowhere; only the guard's address leads to the server, which still sees the name."""
        port = proxy.endpoint.rpartition(":")[2]

        async def guard(url: str) -> Sequence[str]:
            assert url.rstrip("/") == f"http://s3.storage.invalid:{port}"
            return ["127.0.0.1"]

        named = S3Config(**{**_fields(config), "endpoint": f"http://s3.storage.invalid:{port}"})
        store = await open_store(named, guard=guard)
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert set(proxy.hosts) == {f"s3.storage.invalid:{port}"}

    async def test_rebinding_reaches_nothing(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy
    ) -> None:
        """Row 18: a name that is fine when it is checked and forbidden when it is dialled is not dialled."""
        port = proxy.endpoint.rpartition(":")[2]
        answers: list[Sequence[str] | None] = [["127.0.0.1"]]

        async def guard(url: str) -> Sequence[str]:
            if answers and (answer := answers.pop()):
                return answer
            raise invalid("s3Config.endpoint", "must not point to a private or reserved address")

        rebinding = S3Config(**{**_fields(config), "endpoint": f"http://localhost:{port}"})
        store = await open_store(rebinding, guard=guard)
        with pytest.raises(StorageError, match="not allowed") as failed:
            await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert not failed.value.retryable
        assert proxy.requests == []

    async def test_every_new_connection_asks_again(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy
    ) -> None:
        """Row 18: an answer that changes after the first upload is not dialled either."""
        port = proxy.endpoint.rpartition(":")[2]
        calls = 0

        async def guard(url: str) -> Sequence[str]:
            nonlocal calls
            calls += 1
            if calls > 2:
                raise OSError("address cannot be reached")
            return ["127.0.0.1"]

        named = S3Config(**{**_fields(config), "endpoint": f"http://localhost:{port}"})
        store = await open_store(named, guard=guard)
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        seen = len(proxy.requests)
        with pytest.raises(StorageError, match="could not be reached") as failed:
            await store.put_bytes("b.ts", b"x", content_type="video/mp2t")
        assert failed.value.retryable
        assert len(proxy.requests) == seen

    @pytest.mark.parametrize(
        "refusal", [invalid("url", "no"), ValueError("bad port"), OSError("address cannot be reached")]
    )
    async def test_refused_when_opened(
        self, open_store: Opener, config: S3Config, refusal: Exception
    ) -> None:
        """400 naming `s3Config.endpoint`, in one text; an operator's endpoint passes."""

        async def guard(url: str) -> Sequence[str]:
            raise refusal

        with pytest.raises(ServiceError, match="not allowed or cannot be reached") as refused:
            await open_store(config, guard=guard)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "s3Config.endpoint")
        trusted = await open_store(config, guard=guard, trusted=True)
        await trusted.put_bytes("a.ts", b"x", content_type="video/mp2t")

    async def test_the_product_guard(self, open_store: Opener, config: S3Config, proxy: FaultProxy) -> None:
        """Design 13: the real guard keeps a request's endpoint away from this machine, unless private is allowed."""

        def guard_of(netguard: NetGuard) -> AddressGuard:
            async def guard(url: str) -> Sequence[str]:
                return (await netguard.resolve(url, Purpose.STORAGE)).addresses

            return guard

        with pytest.raises(ServiceError) as refused:
            await open_store(config, guard=guard_of(NetGuard()))
        assert refused.value.field == "s3Config.endpoint"
        assert proxy.requests == []
        store = await open_store(config, guard=guard_of(NetGuard(allow_private=True)))
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")

    async def test_the_machines_credentials_are_not_lent(
        self, open_store: Opener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request without keys must not sign with what the server's environment holds."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "machine")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "machine-secret")
        with pytest.raises(ServiceError) as refused:
            await open_store(S3Config(bucket="b", endpoint="http://127.0.0.1:1"))
        assert refused.value.field == "s3Config.accessKey"

    async def test_environment_proxies_and_endpoints_are_ignored(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy would resolve the name for us, past the guard."""
        canary = socket.create_server(("127.0.0.1", 0))
        canary.setblocking(False)
        elsewhere = f"http://127.0.0.1:{canary.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, elsewhere)
        store = await open_store(config)
        await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert proxy.requests
        with pytest.raises(BlockingIOError):
            canary.accept()
        canary.close()

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_redirects_to_other_hosts_are_not_followed(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy, status: int
    ) -> None:
        """Row 19: an S3 answer must not send signed requests elsewhere."""
        canary = socket.create_server(("127.0.0.1", 0))
        canary.setblocking(False)
        location = f"Location: http://127.0.0.1:{canary.getsockname()[1]}/x\r\nx-amz-bucket-region: evil\r\n"
        reply = error(status, "TemporaryRedirect", headers=location)
        proxy.faults.append(Fault("/", times=99, reply=reply))
        store = await open_store(config)
        with pytest.raises(StorageError):
            await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        with pytest.raises(BlockingIOError):
            canary.accept()
        canary.close()

    async def test_error_texts_of_a_hostile_storage_stay_out(
        self, open_store: Opener, config: S3Config, proxy: FaultProxy
    ) -> None:
        """VC-19: neither its message nor a strange code reaches our error text."""
        proxy.faults.append(Fault("PUT", times=99, reply=error(400, f"x {config.secret_key} y")))
        store = await open_store(config)
        with pytest.raises(StorageError, match="HTTP 400") as failed:
            await store.put_bytes("a.ts", b"x", content_type="video/mp2t")
        assert config.secret_key not in str(failed.value)
        assert config.access_key not in repr(failed.value)


def _fields(config: S3Config) -> dict[str, str]:
    return {
        name: getattr(config, name)
        for name in ("bucket", "region", "endpoint", "prefix", "access_key", "secret_key", "cdn_url")
    }
