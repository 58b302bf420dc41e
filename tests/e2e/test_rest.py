"""A walk over the REST surface of a real server, good and bad."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Source
from tests.servers.bax import ADMIN_TOKEN, API_KEY, PROJECT, BaxServer

pytestmark = pytest.mark.xdist_group("e2e")

FORM = b'--x\r\ncontent-disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n%s\r\n--x--\r\n'
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


def test_health_docs_metrics_and_player(server: BaxServer) -> None:
    health = server.call("GET", "/healthz", headers={})
    described = server.call("GET", "/openapi.json", headers={}).json
    metrics = server.call("GET", "/metrics", headers={})

    assert (health.status, health.json["status"], health.json["database"]) == (200, "ok", "ok")
    assert described["openapi"].startswith("3.1")
    assert {"/video/convert", "/video/upload", "/video/jobs/{jobId}"} <= set(described["paths"])
    assert server.call("GET", "/docs", headers={}).status == 200
    assert server.call("GET", "/player/", headers={}).status == 200
    assert b"bax_rpc_calls_total" in metrics.body
    assert "server" not in health.headers


def test_an_upload_is_listed_watched_and_fetched(server: BaxServer, clip: Path) -> None:
    """What is shown is the same everywhere, in the events of design section 13 too.

    VC-28, VC-36, VC-37, VC-40, VC-41, VC-43.
    """
    form = FORM % clip.read_bytes()
    created = server.call("POST", "/video/upload", form, {**server.headers, **MULTIPART})
    assert created.status == 201, created.body
    job_id = created.json["id"]

    events = server.call("GET", f"/video/jobs/{job_id}/events")
    seen = [json.loads(line[6:]) for line in events.body.splitlines() if line.startswith(b"data: ")]
    listed = server.call("GET", "/video/jobs?status=COMPLETED&page=1&pageSize=100").json
    job = server.call("GET", f"/video/jobs/{job_id}").json

    assert events.headers["content-type"].startswith("text/event-stream")
    assert seen[-1] == job
    assert job["status"] == "COMPLETED"
    percents = [one["progress"]["percent"] for one in seen if "progress" in one]
    assert percents == sorted(percents)
    assert job in listed["items"]
    assert listed["page"] == 1
    assert listed["total"] >= 1
    playlist = server.call("GET", urlsplit(job["outputUrl"]).path, headers={})
    assert playlist.status == 200
    assert playlist.body.startswith(b"#EXTM3U")
    segment = urlsplit(job["renditionUrls"]["360p"]).path.replace("playlist.m3u8", "segment_000.ts")
    part = server.call("GET", segment, headers={"range": "bytes=0-187"})
    assert (part.status, len(part.body), part.body[:1]) == (206, 188, b"G")


def test_only_a_pending_job_can_be_cancelled(server: BaxServer, source: Source) -> None:
    """VC-51, VC-52, VC-53, VC-68: 204 for a PENDING job, 409 for one that runs; one conversion at a time runs here."""
    body = {"inputUrl": source.held_url, "outputFormats": ["360p"]}
    running = server.call("POST", "/video/convert", body).json["id"]
    downloading = server.reached(running, "PROCESSING")
    waiting = server.call("POST", "/video/convert", body).json["id"]

    cancelled = server.call("DELETE", f"/video/jobs/{waiting}")
    refused = server.call("DELETE", f"/video/jobs/{running}")
    source.held.set()

    assert downloading["createdAt"] <= downloading["startedAt"]
    assert (cancelled.status, cancelled.body) == (204, b"")
    assert server.call("GET", f"/video/jobs/{waiting}").json["status"] == "CANCELLED"
    assert refused.status == 409
    assert refused.json["error"]["code"] == "JOB_NOT_CANCELLABLE"
    assert server.finished(running)["status"] == "COMPLETED"


def test_a_source_that_is_no_video_fails_with_a_reason(server: BaxServer, source: Source) -> None:
    """B-64: the server's own player page as a source."""
    created = server.call("POST", "/video/convert", {"inputUrl": f"{server.url}/player/"}).json

    job = server.finished(created["id"])

    assert (job["status"], job["errorCode"]) == ("FAILED", "UNSUPPORTED_FORMAT")
    assert job["errorMessage"]
    assert "outputUrl" not in job


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-project-id": PROJECT}, 401, "UNAUTHENTICATED"),
        ({"authorization": "Bearer bax_wrong", "x-project-id": PROJECT}, 401, "UNAUTHENTICATED"),
        ({"authorization": f"Bearer {API_KEY}"}, 400, "INVALID_ARGUMENT"),
        ({"authorization": f"Bearer {API_KEY}", "x-project-id": "cl_other"}, 403, "PERMISSION_DENIED"),
        ({"authorization": f"Bearer {ADMIN_TOKEN}", "x-project-id": PROJECT}, 403, "PERMISSION_DENIED"),
    ],
)
def test_credentials_decide(server: BaxServer, headers: dict[str, str], status: int, code: str) -> None:
    """GN-03, GN-04, design section 13: 401, then 400 and 403."""
    answer = server.call("GET", "/video/jobs", headers=headers)

    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_what_is_not_there_is_404(server: BaxServer) -> None:
    for path in ("/video/jobs/cm_nothing", "/nothing", "/o/forged/master.m3u8"):
        assert server.call("GET", path).status == 404, path


def test_a_wrong_field_is_400_with_its_name(server: BaxServer) -> None:
    """VC-11, VC-12: the field stands in the error."""
    body = {"inputUrl": "https://example.com/a.mp4", "hlsTime": 11}

    answer = server.call("POST", "/video/convert", body)

    assert answer.status == 400
    assert answer.json["error"]["details"]["field"] == "hlsTime"


def test_too_large_an_upload_is_413_before_it_is_read(server: BaxServer) -> None:
    """VC-29, B-60: the announced length is enough; the connection answers although no byte of the body came."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.putrequest("POST", "/video/upload")
    for name, value in {**server.headers, **MULTIPART, "content-length": "900000000"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()

    assert reply.status == 413
    assert json.loads(reply.read())["error"]["code"] == "FILE_TOO_LARGE"
    connection.close()


def test_an_endless_head_is_refused(server: BaxServer) -> None:
    """Section 2.4: a request whose head never ends takes no memory."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        try:
            for _ in range(2000):
                raw.sendall(b"x-filler: " + b"a" * 1000 + b"\r\n")
        except OSError:
            return  # refused and reset while we were still sending
        assert raw.recv(64).startswith(b"HTTP/1.1 431")


def test_idempotent_creation(server: BaxServer, source: Source) -> None:
    """The same key and body give the same job, another body under it 409."""
    headers = {**server.headers, "idempotency-key": "e2e-1"}
    body = {"inputUrl": source.url, "outputFormats": ["360p"]}

    first = server.call("POST", "/video/convert", body, headers)
    again = server.call("POST", "/video/convert", body, headers)
    other = server.call("POST", "/video/convert", {**body, "hlsTime": 4}, headers)

    assert first.status == again.status == 201
    assert first.json == again.json
    assert (other.status, other.json["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert server.finished(first.json["id"])["status"] == "COMPLETED"
