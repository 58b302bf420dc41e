"""Recordings of a request that names a proxy for its bucket: they arrive by it, or it is said why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from adapters.storage.s3_client import S3Options
from server.domain.egress import Egress, EgressStatus, FileOutput, Outputs, StorageChoice, Surface
from tests.conftest import Eventually
from tests.contract.egress_script import at
from tests.contract.egress_stage import EgressStage
from tests.servers.s3 import S3Server
from tests.servers.versitygw import versitygw_server
from tests.servers.web_proxy import WebProxy, web_proxy

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    # versitygw is built on first use, which takes minutes.
    pytest.mark.timeout(1000),
]
OPTIONS = S3Options(part_size=5 << 20, connect_timeout=2, read_timeout=5, attempts=1)
LOGIN = "office:open-sesame-17"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


def behind(proxy: WebProxy, server: S3Server, bucket: str, password: str) -> StorageChoice:
    """A request's storage as LiveKit's clients send it; only the proxy finds the server."""
    return StorageChoice(
        "s3",
        {
            "access_key": server.access_key,
            "secret": server.secret_key,
            "region": server.region,
            "endpoint": server.endpoint.replace("127.0.0.1", "s3.example"),
            "bucket": bucket,
            "force_path_style": True,
            "proxy": {
                "url": f"http://127.0.0.1:{proxy.port}",
                "username": "office",
                "password": password,
            },
        },
    )


async def captured(stage: EgressStage, storage: StorageChoice) -> Egress:
    outputs = Outputs(files=(FileOutput("mp4", "calls/{room_name}"),))
    egress = await stage.start(outputs, surface=Surface.LIVEKIT, storage=storage)
    claim = await stage.claim(egress)
    (await stage.recorders.number(0)).records(4, at=at(0), content="x" * 7_000_000)
    await stage.becomes(egress, EgressStatus.ACTIVE)
    await stage.stop(egress)
    await claim.ends()
    return egress


async def test_a_recording_arrives_by_the_proxy(
    database: SqlDatabase, tmp_path: Path, eventually: Eventually, s3: S3Server
) -> None:
    """LK-103, LK-134, LK-135, LK-136: file and manifest, and the name of the storage is looked up by the proxy alone."""
    bucket = s3.new_bucket()
    stage = await EgressStage(database, tmp_path / "data", eventually, s3_options=OPTIONS).open()
    async with web_proxy(WebProxy(LOGIN, {"s3.example": "127.0.0.1"})) as proxy:
        egress = await captured(stage, behind(proxy, s3, bucket, "open-sesame-17"))
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.results.files[0].size == 7_000_000
        assert any("calls/my-live-room.mp4" in line for line in proxy.requests)
    listed = s3.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert {one["Key"]: one["Size"] for one in listed}["calls/my-live-room.mp4"] == 7_000_000
    await stage.close()


async def test_a_wrong_login_fails_it_without_showing_it(
    database: SqlDatabase,
    tmp_path: Path,
    eventually: Eventually,
    s3: S3Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """LK-136: neither the row, nor the error, nor the log, nor the database's files hold the password."""
    caplog.set_level(logging.DEBUG)
    stage = await EgressStage(database, tmp_path / "data", eventually, s3_options=OPTIONS).open()
    async with web_proxy(WebProxy(LOGIN)) as proxy:
        egress = await captured(stage, behind(proxy, s3, s3.new_bucket(), "guessed-4711"))
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert proxy.requests
    assert done.failing is not None
    assert "the proxy refuses its username and password" in done.failing.message
    assert (stage.files / "egress" / egress.id / "final.mp4").exists()
    assert "guessed-4711" not in repr(done) + caplog.text
    held = [one for one in tmp_path.rglob("*") if one.is_file() and b"guessed-4711" in one.read_bytes()]
    assert held == []
    assert await _is_sealed(database, egress)
    await stage.close()


async def _is_sealed(database: SqlDatabase, egress: Egress) -> bool:
    """It is there for the next attempt, so that its absence above means something."""
    async with database.read() as tx:
        secrets = await tx.egresses.secrets(egress.id)
    return bool(secrets.storages[0].config["proxy"]["password"] == "guessed-4711")
