"""Buckets that only a role may use: its keys are asked for with the caller's, used, renewed, or it is said why not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import S3Options
from adapters.storage.s3_role import sts_endpoint
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.objects import CapabilitySigner
from server.domain.project import S3Config
from server.ids import ProjectId
from server.ports.storage import AssumeRole, ObjectStore, Proxy, StorageError, StorageTarget
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import Fault, error, fault_proxy
from tests.servers.web_proxy import WebProxy, web_proxy

OPTIONS = S3Options(connect_timeout=2, read_timeout=5, attempts=1)
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Cloud:
    """moto, which from here on asks IAM for everything. The user may do nothing but take on the role `uploads`."""

    server: S3Server
    access_key: str
    secret_key: str
    bucket: str

    def config(self, **more: str) -> S3Config:
        return S3Config(
            **{
                "bucket": self.bucket,
                "region": "us-east-1",
                "endpoint": self.server.endpoint,
                "access_key": self.access_key,
                "secret_key": self.secret_key,
                **more,
            }
        )


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        bucket = server.new_bucket()
        iam = _iam(server)
        user = f"user-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=user)
        keys = iam.create_access_key(UserName=user)["AccessKey"]
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=_allowing("sts:AssumeRole"))
        iam.create_role(RoleName="uploads", AssumeRolePolicyDocument=_allowing("sts:AssumeRole"))
        iam.put_role_policy(RoleName="uploads", PolicyName="p", PolicyDocument=_allowing("s3:*"))
        iam.close()
        reset = urllib.request.Request(
            f"{server.endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(reset, timeout=10).close()
        yield Cloud(server, keys["AccessKeyId"], keys["SecretAccessKey"], bucket)


def _iam(server: S3Server) -> Any:
    import boto3

    return boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id="root",
        aws_secret_access_key="root",
    )


def _allowing(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async def unguarded(url: str) -> None:
        return None

    signer = CapabilitySigner([b"k"])
    local = LocalObjects(tmp_path, public_url="http://127.0.0.1:1", signer=signer, clock=SystemClock())
    storage = Storage(local, guard=unguarded, options=OPTIONS)
    yield storage
    await storage.close()


async def opened(
    storage: Storage, config: S3Config, role: AssumeRole | None, proxy: Proxy | None = None
) -> ObjectStore:
    return await storage.open(StorageTarget(ProjectId("clp"), "EG_1", config, role=role, proxy=proxy))


def role(name: str, external_id: str = "") -> AssumeRole:
    return AssumeRole(f"arn:aws:iam::{ACCOUNT}:role/{name}", external_id)


async def test_only_the_role_may_write(storage: Storage, cloud: Cloud) -> None:
    """livekit-surface.md 3.5: what the keys alone may not do, the role may, from upload to temporary address."""
    alone = await opened(storage, cloud.config(), None)
    with pytest.raises(StorageError, match="AccessDenied"):
        await alone.put_bytes("a.mp4", b"x", content_type="video/mp4")

    store = await opened(storage, cloud.config(), role("uploads"))
    await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert [one.key for one in await store.list()] == ["a.mp4"]
    assert await store.get_bytes("a.mp4") == b"x"
    for region in ("us-east-1", ""):
        own = await opened(storage, cloud.config(region=region), role("uploads"))
        # moto takes no IAM for addresses, so they can only be looked at.
        signed = parse_qs(urlsplit(await own.presign("a.mp4", 60)).query)
        assert signed["X-Amz-Security-Token"][0]
        assert not signed["X-Amz-Credential"][0].startswith(cloud.access_key)


async def test_what_is_asked_of_sts(storage: Storage, cloud: Cloud) -> None:
    """The role and its external id in one call for many requests, through the request's proxy as all else."""
    async with web_proxy(WebProxy()) as proxy:
        own = Proxy(f"http://127.0.0.1:{proxy.port}")
        store = await opened(storage, cloud.config(), role("uploads", "tenant-7"), own)
        for key in ("a.mp4", "b.mp4"):
            await store.put_bytes(key, b"x", content_type="video/mp4")
    asked = [body.decode() for body in proxy.bodies if body.startswith(b"Action=AssumeRole")]
    assert len(asked) == 1
    assert "ExternalId=tenant-7" in asked[0]
    assert "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fuploads" in asked[0]
    puts = [head for head in proxy.heads if head.startswith("PUT ")]
    assert len(puts) == 2
    for head in puts:
        assert cloud.access_key not in head
        assert "x-amz-security-token:" in head.lower()


async def test_a_role_that_is_refused(storage: Storage, cloud: Cloud) -> None:
    """For good, naming the field and showing no key."""
    wrong = cloud.config(access_key="AKIAUNKNOWNKEY000000", secret_key="a-secret-that-nobody-may-see")
    store = await opened(storage, wrong, role("uploads", "tenant-8"))
    with pytest.raises(StorageError, match=f"{cloud.bucket}: assume_role_arn: .*HTTP 403") as refused:
        await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
    assert not refused.value.retryable
    shown = "".join(traceback.format_exception(refused.value))
    assert "a-secret-that-nobody-may-see" not in shown
    assert "tenant-8" not in shown


async def test_a_role_is_never_left_out(storage: Storage, cloud: Cloud) -> None:
    """A role that does not exist must not fall back to the keys themselves."""
    store = await opened(storage, cloud.config(), role("no-s3-in-it"))
    with pytest.raises(StorageError):
        await store.put_bytes("c.mp4", b"x", content_type="video/mp4")


@pytest.mark.parametrize(
    ("endpoint", "sts"),
    [
        ("", None),
        ("https://s3.eu-central-1.amazonaws.com", None),
        ("https://s3.cn-north-1.amazonaws.com.cn/", None),
        ("https://minio.example:9000/", "https://minio.example:9000"),
        ("https://amazonaws.com.evil.example", "https://amazonaws.com.evil.example"),
    ],
)
def test_who_is_asked(endpoint: str, sts: str | None) -> None:
    """AWS's own STS of the region, or the self-hosted storage itself."""
    assert sts_endpoint(S3Config(bucket="b", endpoint=endpoint)) == sts


def answer(body: str, status: int = 200) -> bytes:
    """Of whatever listens where STS is asked."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()


def keys_for(lasting: timedelta, *, name: str = "ASIAROLE", zone: str = "Z") -> bytes:
    """STS's answer to AssumeRole."""
    until = (datetime.now(UTC) + lasting).strftime("%Y-%m-%dT%H:%M:%S") + zone
    return answer(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
        f"<AccessKeyId>{name}</AccessKeyId><SecretAccessKey>not-to-be-seen</SecretAccessKey>"
        f"<SessionToken>token-of-{name}</SessionToken><Expiration>{until}</Expiration>"
        "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )


PAGE = "<html><body><p>Hello<br></body></html>"


@pytest.mark.parametrize(
    ("reply", "says", "passes"),
    [
        (answer("<Other/>"), "the endpoint answers, but not as STS does", False),
        (answer("<AssumeRoleResponse/>"), "the endpoint answers, but not as STS does", False),
        (
            answer("<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"),
            "the endpoint answers, but not as STS does",
            False,
        ),
        (answer(PAGE), "the endpoint answers, but not as STS does", False),
        (answer(""), "the endpoint answers, but not as STS does", False),
        (keys_for(timedelta(hours=1), zone="nonsense"), "the endpoint answers, but not as STS does", False),
        (keys_for(timedelta(hours=1), name=""), "the endpoint answers, but not as STS does", False),
        (answer(PAGE, 403), "error, HTTP 403", False),
        (answer(PAGE, 404), "error, HTTP 404", False),
        (answer("", 403), "error, HTTP 403", False),
        (answer(PAGE, 407), "the proxy refuses its username and password", False),
        (answer(PAGE, 429), "error, HTTP 429", True),
        (answer(PAGE, 502), "HTTP 502", True),
        (error(503, "SlowDown"), "HTTP 503", True),
        (keys_for(-timedelta(minutes=1)), "the keys that it gave have expired", True),
        (keys_for(-timedelta(minutes=1), zone=""), "the keys that it gave have expired", True),
    ],
)
async def test_what_is_no_answer_of_sts(
    storage: Storage, caplog: pytest.LogCaptureFixture, reply: bytes, says: str, passes: bool
) -> None:
    """Whatever a caller's endpoint answers, it is the role that is named, and no key."""
    caplog.set_level(logging.DEBUG)
    async with fault_proxy("http://127.0.0.1:1") as far:
        far.faults.append(Fault("POST", times=9, reply=reply))
        config = S3Config(
            "b", endpoint=far.endpoint, access_key="AK", secret_key="a-secret-that-nobody-may-see"
        )
        store = await opened(storage, config, role("uploads"))
        with pytest.raises(StorageError, match=f"^S3 bucket b: assume_role_arn: .*{says}") as refused:
            await store.put_bytes("a.mp4", b"x", content_type="video/mp4")
        assert far.requests == ["POST /"]
    assert refused.value.retryable is passes
    shown = "".join(traceback.format_exception(refused.value)) + caplog.text
    assert "a-secret-that-nobody-may-see" not in shown


async def test_keys_are_renewed_before_they_end(storage: Storage) -> None:
    """docs/livekit-egress.md: a recording may be uploaded for longer than keys of a role live."""
    seen: list[str] = []

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        if "100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(int(length[1]) if length else 0)
        found = re.search(r"Credential=(\w+)/", head)
        seen.append(f"{head.split()[0]} {found[1] if found else ''}")
        asked = seen.count("POST AK")
        # botocore asks again ten minutes before the end: at once for the first keys, not for the second.
        lasting = timedelta(minutes=1) if asked == 1 else timedelta(hours=1)
        writer.write(keys_for(lasting, name=f"ASIA{asked}") if head.startswith("POST") else answer(""))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(attend, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    config = S3Config("b", endpoint=f"http://127.0.0.1:{port}", access_key="AK", secret_key="SK")
    store = await opened(storage, config, role("uploads"))
    for key in ("a.mp4", "b.mp4", "c.mp4"):
        await store.put_bytes(key, b"x", content_type="video/mp4")
    listener.close()
    assert seen == ["POST AK", "PUT ASIA1", "POST AK", "PUT ASIA2", "PUT ASIA2"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"region": "not a region!"}, "the region is not the name of one"),
        ({"endpoint": "http://mini\u00f6 io"}, "the endpoint's address cannot be used"),
    ],
)
@pytest.mark.parametrize("arn", ["", "uploads"])
async def test_what_makes_no_client(storage: Storage, arn: str, fields: dict[str, str], says: str) -> None:
    """For good and in words, with and without a role."""
    config = S3Config(**{"bucket": "b", "access_key": "AK", "secret_key": "SK", **fields})
    with pytest.raises(StorageError, match=f"^S3 bucket b: .*{says}") as refused:
        await opened(storage, config, role(arn) if arn else None)
    assert not refused.value.retryable
