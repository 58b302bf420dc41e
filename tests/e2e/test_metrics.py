"""What Prometheus and a supervisor see of a server and of a worker (issue section 9)."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Eventually
from tests.e2e.conftest import Source
from tests.servers.bax import BaxServer, bax_server, run_bax
from tests.servers.loopback import held_port

pytestmark = pytest.mark.xdist_group("e2e")

_POSTS = "bax_webhook_attempts_total"
Samples = dict[tuple[str, tuple[str, ...]], float]


def _samples(server: BaxServer) -> Samples:
    """By name and the values of its labels, in the order of their names."""
    answer = server.call("GET", "/metrics", headers={})
    assert answer.status == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


class _Endpoint(http.server.BaseHTTPRequestHandler):
    """Takes `/good`, refuses everything else."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200 if self.path == "/good" else 500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def _listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


async def test_jobs_and_webhooks_are_counted(tmp_path: Path, source: Source, eventually: Eventually) -> None:
    """One job that ends well, one that fails and one that waits; an endpoint that takes events and one that does not."""
    with (
        _listening(_Endpoint) as endpoints,
        bax_server(
            tmp_path / "bax", role="worker", worker_http_port="0", conversion_concurrency="1",
            webhook_schedule_sec="0.1",
        ) as worker,
        bax_server(worker.data_dir, role="api", public_url="http://127.0.0.1:1") as api,
    ):  # fmt: skip
        for path in ("/good", "/bad"):
            made = {"url": endpoints + path, "events": ["video.conversion.started"]}
            assert api.call("POST", "/v1/webhooks", made).status < 300
        wanted = {"inputUrl": source.url, "outputFormats": ["360p"]}
        good = api.call("POST", "/video/convert", wanted).json["id"]
        api.finished(good)
        bad = api.call("POST", "/video/convert", {"inputUrl": endpoints + "/nothing.mp4"}).json["id"]
        api.finished(bad)
        held = api.call("POST", "/video/convert", {**wanted, "inputUrl": source.held_url}).json["id"]
        api.reached(held, "PROCESSING")
        api.call("POST", "/video/convert", wanted)

        def settled() -> bool:
            posts = {key[1][0]: value for key, value in _samples(worker).items() if key[0] == _POSTS}
            # Three jobs started: each told to two endpoints, of which one refuses it twice.
            assert posts == {"delivered": 3, "failed": 3, "dead": 3}
            seen = _samples(api)
            return seen["bax_jobs", ("conversion", "PENDING")] == 1 and seen["bax_webhook_backlog", ()] == 0

        await eventually(settled, within=30, every=0.3)
        seen, health = _samples(worker), worker.call("GET", "/healthz", headers={})
        other = _samples(api)
        elsewhere = worker.call("GET", "/video/jobs")

        assert (health.status, health.json["role"], health.json["database"]) == (200, "worker", "ok")
        assert elsewhere.status == 404
        assert seen["bax_job_attempts_total", ("conversion", "completed")] == 1
        assert seen["bax_job_attempts_total", ("conversion", "failed")] == 1
        assert seen["bax_job_attempts_total", ("conversion", "lost")] == 0
        assert seen["bax_job_running", ("conversion",)] == 1
        assert seen["bax_job_claim_seconds_count", ("conversion",)] == 3
        assert seen["bax_job_attempt_seconds_count", ("conversion",)] == 2
        assert seen["bax_webhook_post_seconds_count", ()] == 9
        assert other["bax_jobs", ("conversion", "PROCESSING")] == 1
        assert other["bax_jobs_oldest_pending_seconds", ("conversion",)] > 0
        assert other["bax_storage_bytes", ("objects",)] > 0
        assert other["bax_disk_free_bytes", ()] > 0
        assert (other["bax_database_up", ()], other["bax_livekit_up", ()]) == (1, 0)
        assert not any(name.startswith("bax_rpc") for name, _ in seen)


async def test_a_job_taken_from_a_dead_worker_is_counted(
    tmp_path: Path, source: Source, eventually: Eventually
) -> None:
    with bax_server(tmp_path / "bax", role="worker", public_url="http://127.0.0.1:1") as dying:
        with bax_server(dying.data_dir, role="api") as api:
            job = api.call("POST", "/video/convert", {"inputUrl": source.held_url}).json["id"]
            api.reached(job, "PROCESSING")
        dying.process.kill()
        dying.process.wait(10)

        with bax_server(dying.data_dir, worker_http_port="0") as heir:
            await eventually(
                lambda: _samples(heir)["bax_job_takeovers_total", ("conversion",)] == 1, within=30
            )
            source.held.set()

            assert heir.finished(job)["status"] == "COMPLETED"
            assert _samples(heir)["bax_job_claim_seconds_count", ("conversion",)] == 0


def test_a_taken_port_of_a_worker_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_bax(
            "serve", "--role", "worker",
            env={"BAX_DATA_DIR": str(tmp_path / "bax"), "BAX_WORKER_HTTP_PORT": port},
        )  # fmt: skip

    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert port in done.stderr
    assert "BAX_WORKER_HTTP_PORT" in done.stderr


async def test_health_asks_the_configured_livekit(tmp_path: Path, eventually: Eventually) -> None:
    """Ready all the same, for everything but rooms works; the body says what is wrong, and when it is over."""
    with (
        held_port() as port,
        bax_server(
            tmp_path / "bax",
            livekit_embedded="1",
            livekit_url=f"ws://127.0.0.1:{port}",
            livekit_api_key="devkey",
            livekit_api_secret="devsecret-devsecret-devsecret-dev",
        ) as server,
    ):
        away = server.call("GET", "/healthz", headers={})
        metrics = _samples(server)

        assert away.status == 200
        assert away.json["status"] == "ok"
        assert away.json["livekit"].startswith("unavailable: ")
        assert "refused" in away.json["livekit"]
        assert "devsecret" not in away.body.decode()
        assert metrics["bax_livekit_up", ()] == 0
