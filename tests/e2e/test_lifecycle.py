"""Starting, stopping and restarting real servers."""

from __future__ import annotations

import http.client
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.descriptors import descriptors
from tests.e2e.conftest import Source
from tests.servers.bax import API_KEY, PROJECT, BaxServer, bax_server, run_bax

pytestmark = pytest.mark.xdist_group("e2e")


def test_sigterm_lets_a_job_finish_and_a_restart_keeps_it(tmp_path: Path, source: Source) -> None:
    """Issue section 4: the running job completes during the drain, a waiting one after the restart."""
    with bax_server(tmp_path / "bax", conversion_concurrency="1") as server:
        body = {"inputUrl": source.held_url, "outputFormats": ["360p"]}
        running = server.call("POST", "/video/convert", body).json["id"]
        server.reached(running, "PROCESSING")
        waiting = server.call("POST", "/video/convert", body).json["id"]
        server.process.send_signal(signal.SIGTERM)
        _until_refused(server)
        source.held.set()
        status = server.process.wait(60)
        server.start()
        finished = server.finished(waiting)

        assert status == 0
        assert server.call("GET", f"/video/jobs/{running}").json["status"] == "COMPLETED"
        assert finished["status"] == "COMPLETED"
        playlist = urlsplit(finished["outputUrl"]).path
        assert server.call("GET", playlist, headers={}).status == 200


def test_a_drain_past_its_grace_hands_the_job_over(tmp_path: Path, source: Source) -> None:
    """A job that does not end within the grace goes back to PENDING; the server is gone in time, with status 0."""
    with bax_server(tmp_path / "bax", conversion_concurrency="1", drain_grace_sec="0") as server:
        job = server.call("POST", "/video/convert", {"inputUrl": source.held_url}).json["id"]
        server.reached(job, "PROCESSING")

        assert server.stop(within=30) == 0

        source.held.set()
        server.start()
        assert server.finished(job)["status"] == "COMPLETED"


def test_the_second_signal_ends_it_at_once(tmp_path: Path, source: Source) -> None:
    with bax_server(tmp_path / "bax", drain_grace_sec="600") as server:
        job = server.call("POST", "/video/convert", {"inputUrl": source.held_url}).json["id"]
        server.reached(job, "PROCESSING")
        server.process.send_signal(signal.SIGINT)
        _until_refused(server)

        assert server.stop(signal.SIGTERM, within=10) == 128 + signal.SIGTERM


def test_watchers_are_told_and_do_not_hold_up_the_stop(tmp_path: Path, source: Source) -> None:
    """An open event stream ends with an error of its own, however long the grace is."""
    with bax_server(tmp_path / "bax", role="api", drain_grace_sec="600") as server:
        job = server.call("POST", "/video/convert", {"inputUrl": source.url}).json["id"]
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        connection.request("GET", f"/video/jobs/{job}/events", headers=server.headers)
        stream = connection.getresponse()
        assert stream.readline() == b"event: job\n"

        server.process.send_signal(signal.SIGTERM)
        rest = stream.read()
        connection.close()

        assert b"event: error" in rest
        assert b"UNAVAILABLE" in rest
        assert server.process.wait(30) == 0


def test_roles_share_a_database(tmp_path: Path, source: Source) -> None:
    """`api` takes calls and runs nothing, `worker` runs jobs and listens nowhere."""
    with bax_server(tmp_path / "bax", role="api") as api:
        job = api.call("POST", "/video/convert", {"inputUrl": source.url, "outputFormats": ["360p"]}).json
        assert api.call("GET", "/healthz", headers={}).json["role"] == "api"
        with bax_server(api.data_dir, role="worker", public_url=api.url) as worker:
            finished = api.finished(job["id"])
            listening = _listening_ports(worker.process.pid)

            assert finished["status"] == "COMPLETED"
            assert listening == []
            assert api.call("GET", urlsplit(finished["outputUrl"]).path, headers={}).status == 200
            assert worker.stop() == 0


def test_the_first_start_shows_its_key_once(tmp_path: Path) -> None:
    """Design section 2: generated, stored hashed, printed; the admin token's file is named."""
    with bax_server(tmp_path / "bax", bootstrap_api_key="", admin_token="") as server:
        first = server.printed
        key = next(word for word in first.split() if word.startswith("bax_"))
        headers = {"authorization": f"Bearer {key}", "x-project-id": PROJECT}
        token = (server.data_dir / "admin.token").read_text().strip()
        accepted = server.call("GET", "/video/jobs", headers=headers).status
        administered = server.call("GET", "/v1/projects", headers={"authorization": f"Bearer {token}"}).status
        server.stop()
        server.start()

        assert (accepted, administered) == (200, 200)
        assert "admin.token" in first
        assert f"project      {PROJECT}" in first
        assert key not in server.printed
        assert key not in server.log
        stored = b"".join(path.read_bytes() for path in server.data_dir.glob("baxcloud.db*"))
        assert key.encode() not in stored


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
def test_a_taken_port_is_one_line_and_status_1(tmp_path: Path, option: str) -> None:
    server = BaxServer(tmp_path / "bax")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"--http-port": "0", "--grpc-port": "0", option: str(taken.getsockname()[1])}
        done = run_bax("serve", *(part for pair in ports.items() for part in pair), env=server.environment())

    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1
    assert len(lines) == 1
    assert str(ports[option]) in lines[0]
    assert option in lines[0]


def test_settings_that_cannot_be_are_told_before_anything_starts(tmp_path: Path) -> None:
    """Design section 13: an unknown variable stops the start with the nearest known name."""
    server = BaxServer(tmp_path / "bax", http_prot="8080")

    done = run_bax("serve", env=server.environment())

    assert done.returncode == 1
    assert done.stderr == "bax: unknown setting BAX_HTTP_PROT; did you mean BAX_HTTP_PORT?\n"
    assert not (tmp_path / "bax").exists()


def test_secrets_that_no_key_opens_stop_the_start(tmp_path: Path) -> None:
    """A lost key is told as such and not found out job by job."""
    with bax_server(tmp_path / "bax") as server:
        server.stop()
        (server.data_dir / "secret.key").unlink()
        done = run_bax("serve", "--http-port", "0", "--grpc-port", "0", env=server.environment())

    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1
    assert "BAX_SECRET_KEYS" in lines[0]
    assert len(lines) == 1


def test_a_head_that_does_not_come_is_given_up(server: BaxServer) -> None:
    """Section 2.4: a connection that sends its head a byte at a time is closed with 408 after 15 s."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=40) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        answer = raw.recv(1024)

    assert answer.startswith(b"HTTP/1.1 408")


def test_neither_log_nor_output_holds_credentials(server: BaxServer, source: Source) -> None:
    """Queries, keys and the capabilities in object addresses are not logged."""
    body = {"inputUrl": f"{source.url}?token=sesame", "outputFormats": ["360p"]}
    job = server.finished(server.call("POST", "/video/convert", body).json["id"])
    capability = urlsplit(job["outputUrl"]).path.split("/")[2]
    server.call("GET", urlsplit(job["outputUrl"]).path + "?secret=sesame", headers={})

    for word in ("sesame", API_KEY, capability):
        assert word not in server.log
        assert word not in server.printed


def test_grpc_health_follows_the_start(tmp_path: Path) -> None:
    with bax_server(tmp_path / "bax", role="api") as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            request = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        server.stop()
        with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)


def _listening_ports(pid: int) -> list[str]:
    """Local addresses of the process's listening TCP sockets (Linux)."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("there is no /proc/net/tcp to look at")
    inodes = {link[8:-1] for link in descriptors(pid) if link.startswith("socket:[")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


def _until_refused(server: BaxServer) -> None:
    parts = urlsplit(server.url)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=5).close()
        except ConnectionError:
            return
    raise AssertionError("it still accepts connections")
