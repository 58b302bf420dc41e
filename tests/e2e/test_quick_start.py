"""The curl samples of the seed's video conversion page, verbatim but for host, key, project and source."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Source
from tests.servers.bax import API_KEY, PROJECT, BaxServer
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server

pytestmark = [
    pytest.mark.xdist_group("e2e"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt-get install curl"),
]

HOST = "https://api.baxcloud.tech"

QUICK_START = r"""curl -X POST \
https://api.baxcloud.tech/video/convert \
-H "Authorization: Bearer YOUR_API_KEY" \
-H "X-Project-Id: YOUR_PROJECT_ID" \
-H "Content-Type: application/json" \
-d '{
"inputUrl": "https://example.com/my-video.mp4",
"outputFormats": ["360p", "480p", "720p"],
"categorize": true,
"moderate": true,
"metadata": { "userId": "u_42", "uploadId": "u_42_v17" },
"s3Config": {
"bucket": "my-bucket",
"region": "us-east-1",
"prefix": "videos/my-video/",
"accessKey": "AKIA...",
"secretKey": "...",
"cdnUrl": "https://cdn.example.com"
}
}'"""

UPLOAD = r"""curl -X POST \
https://api.baxcloud.tech/video/upload \
-H "Authorization: Bearer YOUR_API_KEY" \
-H "X-Project-Id: YOUR_PROJECT_ID" \
-F "video=@./my-video.mp4" \
-F 'outputFormats=["360p","720p"]' \
-F 'ffmpegPreset=fast' \
-F 'metadata={"userId":"u_42"}'"""

GET_JOB = r"""curl https://api.baxcloud.tech/video/jobs/JOB_ID \
-H "Authorization: Bearer YOUR_API_KEY" \
-H "X-Project-Id: YOUR_PROJECT_ID"
"""

INLINE_MODERATION = r"""curl -X POST \
https://api.baxcloud.tech/video/convert \
-H "Authorization: Bearer YOUR_API_KEY" \
-H "X-Project-Id: YOUR_PROJECT_ID" \
-H "Content-Type: application/json" \
-d '{
"inputUrl": "https://example.com/video.mp4",
"outputFormats": ["360p", "720p"],
"moderate": true,
"s3Config": { /* ... */ }
}'"""

MODERATE = r"""curl -X POST \
https://api.baxcloud.tech/video/moderate \
-H "Authorization: Bearer YOUR_API_KEY" \
-H "X-Project-Id: YOUR_PROJECT_ID" \
-H "Content-Type: application/json" \
-d '{
"inputUrl": "https://example.com/video.mp4",
"maxFrames": 8,
"threshold": 0.25,
"metadata": { "userId": "u_42" }
}'"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as running:
        running.client().create_bucket(Bucket="my-bucket")
        yield running


def run_sample(sample: str, server: BaxServer, *, folder: Path | None = None, **replaced: str) -> Any:
    """What the command prints, as JSON."""
    command = sample.replace(HOST, server.url).replace("YOUR_API_KEY", API_KEY)
    command = command.replace("YOUR_PROJECT_ID", PROJECT)
    for old, new in replaced.items():
        assert old in command
        command = command.replace(old, new)
    done = subprocess.run(
        ["bash", "-c", command.replace("curl", "curl -sS", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_quick_start_converts_to_the_bucket(server: BaxServer, source: Source, s3: S3Server) -> None:
    """The sample as it stands; `endpoint` is added, or it would go to AWS.

    VC-01, VC-03, VC-05, VC-14, VC-15, VC-16, VC-17, VC-18, VC-19, VC-20, VC-26, VC-41, VC-43, VC-44, VC-48,
    VC-61, VC-62, VC-63, VC-64, VC-65, VC-75, VC-77.
    """
    sample = QUICK_START.replace("https://example.com/my-video.mp4", source.url)
    sample = sample.replace('"bucket"', f'"endpoint": "{s3.endpoint}",\n"bucket"')

    created = run_sample(sample, server)

    assert created["status"] == "PENDING"
    assert not {"startedAt", "completedAt", "success", "data"} & created.keys()
    assert created["id"].startswith("cm")
    assert created["projectId"] == PROJECT
    assert created["inputUrl"] == source.url
    assert created["outputFormats"] == ["360p", "480p", "720p"]
    assert created["metadata"] == {"userId": "u_42", "uploadId": "u_42_v17"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created["createdAt"])
    assert "AKIA" not in json.dumps(created)

    server.finished(created["id"])
    job = run_sample(GET_JOB, server, JOB_ID=created["id"])

    assert job["status"] == "COMPLETED"
    assert job["outputUrl"] == "https://cdn.example.com/videos/my-video/master.m3u8"
    assert job["thumbnailUrl"] == "https://cdn.example.com/videos/my-video/thumbnail.jpg"
    assert (job["durationSec"], job["segmentsCount"]) == (4, 2)
    assert isinstance(job["costCents"], int)
    assert job["createdAt"] <= job["startedAt"] <= job["completedAt"]
    listed = s3.client().list_objects_v2(Bucket="my-bucket")["Contents"]
    keys = {item["Key"].removeprefix("videos/my-video/") for item in listed}
    assert keys == {"master.m3u8", "thumbnail.jpg"} | {
        f"{name}/{file}"
        for name in ("360p", "480p", "720p")
        for file in ("playlist.m3u8", "segment_000.ts", "segment_001.ts")
    }


def test_the_upload_sample(server: BaxServer, clip: Path, tmp_path: Path) -> None:
    """VC-28, VC-30, VC-31, VC-35, VC-76: multipart upload with the options as form fields."""
    (tmp_path / "my-video.mp4").write_bytes(clip.read_bytes())

    created = run_sample(UPLOAD, server, folder=tmp_path)

    assert created["status"] == "PENDING"
    assert created["outputFormats"] == ["360p", "720p"]
    assert created["metadata"] == {"userId": "u_42"}
    job = server.finished(created["id"])
    assert job["status"] == "COMPLETED", job
    assert job["outputUrl"].endswith("/master.m3u8")


def test_the_inline_moderation_sample(server: BaxServer, source: Source, s3: S3Server) -> None:
    """VC-78; the seed's `s3Config` is a comment, so a whole one stands there.

    No model is installed: `moderation` is absent. That it is present with one is for the tests of the vision engine.
    """
    config = {
        "bucket": "my-bucket",
        "endpoint": s3.endpoint,
        "prefix": "videos/moderated",
        "accessKey": s3.access_key,
        "secretKey": s3.secret_key,
    }
    sample = INLINE_MODERATION.replace("https://example.com/video.mp4", source.url)
    sample = sample.replace("{ /* ... */ }", json.dumps(config))

    created = run_sample(sample, server)
    server.finished(created["id"])
    job = run_sample(GET_JOB, server, JOB_ID=created["id"])

    assert created["outputFormats"] == ["360p", "720p"]
    assert job["status"] == "COMPLETED", job
    assert job["outputUrl"] == f"{s3.endpoint}/my-bucket/videos/moderated/master.m3u8"
    assert job["moderate"] is True
    assert not {"categorization", "moderation"} & job.keys()


def test_the_moderation_sample_does_not_pretend(server: BaxServer) -> None:
    """Until there is a vision engine the standalone routes say that they are not implemented."""
    answer = run_sample(MODERATE, server)

    assert answer["success"] is False
    assert answer["error"]["code"] == "UNIMPLEMENTED"
