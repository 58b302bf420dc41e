"""RTCstack's recordings in the operator's bucket of an S3 server, and what others do with them there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from adapters.db.unit_of_work import SqlDatabase
from adapters.storage.s3_client import S3Options
from server.domain.egress import EgressStatus, FileOutput, Outputs, Surface
from server.policies import storage_policy
from server.settings import load_settings
from tests.conftest import Eventually
from tests.contract.egress_script import at
from tests.contract.egress_stage import PROJECT, EgressStage
from tests.servers.s3 import S3Server
from tests.servers.versitygw import versitygw_server

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    # versitygw is built on first use, which takes minutes.
    pytest.mark.timeout(1000),
]
OPTIONS = S3Options(part_size=5 << 20, connect_timeout=2, read_timeout=5, attempts=1)
BUCKET = "rtcstack-recordings"
KEY = "room-abc/2024-04-21T10-00-00.mp4"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("versitygw")) as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
async def stage(
    database: SqlDatabase,
    tmp_path: Path,
    eventually: Eventually,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[EgressStage]:
    """The bucket is named by the environment."""
    for name, value in {
        "BUCKET": BUCKET,
        "ENDPOINT": s3.endpoint,
        "ACCESS_KEY": s3.access_key,
        "SECRET_KEY": s3.secret_key,
    }.items():
        monkeypatch.setenv(f"BAX_S3_{name}", value)
    policy = storage_policy(load_settings(data_dir=tmp_path / "data", bootstrap_project_id=PROJECT))
    stage = EgressStage(database, tmp_path / "data", eventually, policy=policy, s3_options=OPTIONS)
    await stage.open()
    yield stage
    await stage.close()


async def test_presigned_by_others(stage: EgressStage, s3: S3Server) -> None:
    """RT-10, RT-14, RT-16, RT-17, RT-18, RT-26, RT-28, RT-29: what the event names can be fetched by whoever has the bucket's keys."""
    egress = await stage.start(Outputs(files=(FileOutput("mp4", KEY),)), surface=Surface.RTCSTACK)
    claim = await stage.claim(egress)
    (await stage.recorders.number(0)).records(4, at=at(0))
    await stage.becomes(egress, EgressStatus.ACTIVE)
    await stage.stop(egress)
    await claim.ends()
    assert "egress_ended" not in await stage.names()
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.COMPLETE)

    told = dict(await stage.events())["egress_ended"]
    assert (told["file"], told["size"]) == (KEY, 5)
    client = s3.client()
    parameters = {"Bucket": BUCKET, "Key": told["file"]}
    url = client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=3600)
    assert await asyncio.to_thread(lambda: urlopen(url, timeout=20).read()) == b"media"
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [key for key in keys if key.endswith(".mp4")] == [KEY]
