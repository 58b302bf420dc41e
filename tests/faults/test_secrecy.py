"""Unique markers for every secret go in; nothing that comes out, is logged or lies on disk holds one of them."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import json_format

from generated.baxcloud.v1 import project_pb2, room_pb2, webhook_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.errors import ServiceError
from server.services.rooms import Rooms
from server.services.webhooks import WebhookService
from tests.conftest import Eventually
from tests.faults.processes import below
from tests.faults.test_isolation import ADMIN
from tests.faults.worker_stage import bucket_behind
from tests.integration.conversion_stage import Stage, answering, backend_stage, serving_file
from tests.integration.http_sources import serve
from tests.media import Clip, ClipFactory
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.sinks import Answer

pytestmark = pytest.mark.timeout(120)

# With characters that other encodings change.
SECRETS = {
    "bootstrap API key": "bax_MarkerOfTheBootstrapKey0123456789abcdef",
    "admin token": "marker/of+the/admin=token",
    "LiveKit secret": "marker+of/the+livekit=secret+0123456789",
    "secret of the LiveKit behind": "marker/of+the/behind=secret+0123456789ab",
    "request's S3 access key": "MARKEROFREQUESTACCESS",
    "request's S3 secret key": "marker/of+the/request=secret",
    "project's S3 access key": "MARKEROFPROJECTACCESS",
    "project's S3 secret key": "marker/of+the/project=secret",
    "operator's S3 secret key": "marker/of+the/operator=secret",
    "webhook secret": "marker/of+the/webhook=secret",
}
# Shown where the caller gave it (B-87: inputUrl is echoed as given), and nowhere else.
URL_MARKER = "markeroftheurlquery"


def forms(secret: str) -> Iterator[bytes]:
    """The secret as it is, and as it would look in a URL, a hex dump, backwards, or inside base64 at any offset."""
    raw = secret.encode()
    yield raw
    yield raw[::-1]
    yield raw.hex().encode()
    yield quote(secret, safe="").encode()
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + raw)
        # The ends depend on the neighbours.
        yield encoded[4:-4]
        yield encoded[4:-4].replace(b"+", b"-").replace(b"/", b"_")


def holds(data: bytes, secrets: Mapping[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in data for form in forms(secret))]


@dataclass
class Findings:
    """Where one of `secrets` was seen; `looked_at` proves that there was something to look at."""

    secrets: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    found: list[tuple[str, str]] = field(default_factory=list)
    looked_at: set[str] = field(default_factory=set)

    def look(self, where: str, data: bytes, *, for_url: bool = False) -> None:
        """`for_url`: not even the query of the input URL may be there."""
        self.looked_at.add(where.partition(":")[0])
        secrets = self.secrets | ({"input URL": URL_MARKER} if for_url else {})
        self.found += [(where, name) for name in holds(data, secrets)]

    async def watch_processes(self) -> None:
        """Command lines and environments of the media processes, while they run."""
        while True:
            for process in below(os.getpid()):
                if process.is_media:
                    self.look("command line", process.command.encode(), for_url=True)
                    self.look("environment", _environment(process.pid), for_url=True)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def watched(findings: Findings) -> AsyncIterator[None]:
    watching = asyncio.create_task(findings.watch_processes())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
async def stage(data_dir: Path, database_url: str, eventually: Eventually) -> AsyncIterator[Stage]:
    settings: dict[str, Any] = {
        "database_url": database_url,
        "bootstrap_api_key": SECRETS["bootstrap API key"],
        "admin_token": SECRETS["admin token"],
        "bootstrap_livekit_api_key": "APImarker",
        "bootstrap_livekit_api_secret": SECRETS["LiveKit secret"],
        # Nothing answers there; tokens need only the pair.
        "livekit_url": "ws://127.0.0.1:9",
        "livekit_api_key": "APIbehind",
        "livekit_api_secret": SECRETS["secret of the LiveKit behind"],
        "s3_bucket": "operator-bucket",
        "s3_access_key": "operator",
        "s3_secret_key": SECRETS["operator's S3 secret key"],
        "webhook_schedule_sec": (0.1,),
    }
    async with backend_stage(data_dir, eventually, **settings) as stage:
        yield stage


def database_dump(url: str, postgres: PostgresServer | None) -> bytes:
    if postgres is None:
        path = Path(url.removeprefix("sqlite:///"))
        return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
    command = [str(postgres.program("pg_dump")), "--inserts", url]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout


async def refused(call: Any) -> bytes:
    """All that an error would show."""
    try:
        return str(await call).encode()
    except ServiceError as error:
        return f"{error} {error!r} {error.message} {error.field} {error.meta}".encode()


async def test_no_secret_comes_out(
    stage: Stage,
    database_url: str,
    clips: ClipFactory,
    s3: S3Server,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """Case 24, I6, GN-17, VC-19: replies, tokens, errors, webhooks, logs, database, files, processes."""
    caplog.set_level(logging.INFO)
    for name in ("server", "adapters"):
        caplog.set_level(logging.DEBUG, logger=name)
    findings = Findings()
    sink = await stage.listen()
    sink.script.append(Answer(500))
    webhooks = stage.backend.services["WebhookService"]
    assert isinstance(webhooks, WebhookService)
    rooms = stage.backend.services["RoomService"]
    assert isinstance(rooms, Rooms)

    # Secrets that are stored.
    hook = await webhooks.create_webhook(
        webhook_pb2.CreateWebhookRequest(url=sink.url, events=["*"], secret=SECRETS["webhook secret"]),
        stage.context(),
    )
    rotated = await webhooks.rotate_webhook_secret(
        webhook_pb2.RotateWebhookSecretRequest(webhook_id=hook.id, overlap_seconds=60), stage.context()
    )
    findings.secrets["rotated webhook secret"] = rotated.secret
    bucket = s3.new_bucket()
    own = bucket_behind(s3.endpoint, s3, bucket)
    of_project = own | {
        "access_key": SECRETS["project's S3 access key"],
        "secret_key": SECRETS["project's S3 secret key"],
        "prefix": "of-project",
    }
    await stage.set_s3(**of_project)
    of_request = own | {
        "access_key": SECRETS["request's S3 access key"],
        "secret_key": SECRETS["request's S3 secret key"],
    }
    answers: list[bytes] = []

    # A job that completes, and jobs that fail at their source and at their storage.
    clip = clips.clip(Clip(seconds=4, size="640x360"))
    async with (
        watched(findings),
        serve(serving_file(clip), host="127.0.0.1") as good,
        serve(answering(403), host="127.0.0.1") as bad,
    ):
        address = f"http://127.0.0.1:{{}}/a.mp4?X-Amz-Signature={URL_MARKER}"
        jobs = [
            await stage.convert(address.format(good.port), s3_config=of_request, ffmpeg_preset="medium"),
            await stage.convert(address.format(bad.port), s3_config=of_request),
            await stage.upload(clip, s3_config=of_request | {"bucket": "no-such-bucket"}),
            await stage.upload(clips.truncated()),
        ]
        ends = [await stage.finish(job) for job in jobs]
    assert [pb.ConversionJob.Status.Name(end.status) for end in ends] == ["COMPLETED", *["FAILED"] * 3]
    answers += [json_format.MessageToJson(job).encode() for job in (*jobs, *ends)]
    findings.look("error", " ".join(end.error_message for end in ends).encode(), for_url=True)

    token = await rooms.create_token(
        room_pb2.CreateTokenRequest(room_name="r", participant_identity="i", metadata="m"), stage.context()
    )
    findings.look("token", token.token.encode())

    # Everything that shows something.
    context, project_id = stage.context(), stage.project_id
    answers += [
        await refused(call)
        for call in (
            stage.conversions.list_conversion_jobs(pb.ListConversionJobsRequest(), context),
            stage.projects.get_project(project_pb2.GetProjectRequest(project_id=project_id), ADMIN),
            stage.projects.list_projects(project_pb2.ListProjectsRequest(), ADMIN),
            stage.projects.list_api_keys(project_pb2.ListApiKeysRequest(project_id=project_id), ADMIN),
            stage.projects.list_live_kit_keys(
                project_pb2.ListLiveKitKeysRequest(project_id=project_id), ADMIN
            ),
            webhooks.list_webhooks(webhook_pb2.ListWebhooksRequest(), context),
            webhooks.get_webhook(webhook_pb2.GetWebhookRequest(webhook_id=hook.id), context),
            webhooks.update_webhook(
                webhook_pb2.UpdateWebhookRequest(webhook_id=hook.id, events=["*"]), context
            ),
            webhooks.test_webhook(webhook_pb2.TestWebhookRequest(webhook_id=hook.id), context),
            stage.convert("http://127.0.0.1:9/a", s3_config=of_request | {"endpoint": "ftp://x"}),
            stage.convert("http://127.0.0.1:9/a", s3_config=of_request | {"bucket": "../.."}),
        )
    ]
    # Both endpoints have all events; the first delivery was refused once.
    await stage.eventually(lambda: len(sink.received) >= 2 * 2 * len(jobs) + 1)
    answers.append(
        await refused(
            webhooks.list_deliveries(webhook_pb2.ListDeliveriesRequest(webhook_id=hook.id), context)
        )
    )

    for answer in answers:
        findings.look("reply", answer)
    for received in sink.received:
        findings.look("webhook", received.body + str(received.headers).encode())
    logged = "\n".join(caplog.handler.format(record) for record in caplog.records)
    findings.look("log", logged.encode(), for_url=True)
    postgres = None if database_url.startswith("sqlite") else request.getfixturevalue("postgres")
    findings.look("database", database_dump(database_url, postgres))
    for path in stage.data_dir.rglob("*"):
        if path.is_file():
            findings.look(f"file: {path.name}", path.read_bytes())
            findings.look(f"name: {path}", str(path).encode(), for_url=True)
    findings.look("settings", repr(stage.backend.settings).encode())
    findings.look("backend", repr(stage.backend).encode())

    assert findings.found == []
    expected = {
        "command line",
        "environment",
        "error",
        "token",
        "reply",
        "webhook",
        "log",
        "database",
        "file",
    }
    assert expected <= findings.looked_at


def test_the_search_finds_what_is_hidden() -> None:
    """The test of the test: each form is recognised wherever it stands."""
    secret = "marker/of+a=secret"
    for offset in range(5):
        hidden = b"x" * offset + secret.encode() + b"tail"
        for data in (
            hidden,
            base64.b64encode(hidden),
            base64.urlsafe_b64encode(hidden),
            hidden.hex().encode(),
        ):
            assert holds(data, {"it": secret}) == ["it"], data
    assert holds(b"key=" + quote(secret, safe="").encode(), {"it": secret}) == ["it"]
    assert holds(b"nothing here", {"it": secret}) == []
