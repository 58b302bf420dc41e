"""`bax` talking to a server over REST."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.e2e.conftest import Source
from tests.servers.bax import ADMIN_TOKEN, API_KEY, BAX, PROJECT, BaxServer, clean_environment, run_bax
from tests.servers.moto import moto_server

pytestmark = pytest.mark.xdist_group("e2e")

WATCH = "baxcloud.v1.VideoConversionService/WatchConversionJob"
QUICK = ("--format", "360p", "--preset", "ultrafast")


def _as_client(server: BaxServer, **more: str) -> dict[str, str]:
    named = {f"BAX_{name.upper()}": value for name, value in more.items()}
    return {"BAX_URL": server.url, "BAX_API_KEY": API_KEY, "BAX_PROJECT_ID": PROJECT, **named}


def test_convert_uploads_and_waits(server: BaxServer, clip: Path) -> None:
    done = run_bax("convert", str(clip), *QUICK, "--json", env=_as_client(server))

    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job == server.call("GET", f"/video/jobs/{job['id']}").json
    assert job["status"] == "COMPLETED"
    assert job["ffmpegPreset"] == "ultrafast"


def test_convert_by_url_prints_the_player_of_that_server(server: BaxServer, source: Source) -> None:
    done = run_bax("convert", source.url, *QUICK, "--hls-time", "4", env=_as_client(server))

    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert lines["player"].startswith(f"{server.url}/player/?src=")
    assert "in 1 segments" in lines["duration"]


def test_convert_to_a_bucket(server: BaxServer, clip: Path, tmp_path: Path) -> None:
    """Options over environment, credentials from the environment only, and never shown."""
    with moto_server(tmp_path) as s3:
        bucket = s3.new_bucket()
        env = _as_client(
            server,
            s3_bucket="elsewhere",
            s3_endpoint=s3.endpoint,
            s3_access_key="AKIA",
            s3_secret_key="sesame",
        )
        options = ("--bucket", bucket, "--prefix", "films/1/", "--cdn-url", "https://cdn.example.com")
        done = run_bax("convert", str(clip), *QUICK, *options, "--json", env=env)
        keys = [item["Key"] for item in s3.client().list_objects_v2(Bucket=bucket)["Contents"]]

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputUrl"] == "https://cdn.example.com/films/1/master.m3u8"
    assert "films/1/master.m3u8" in keys
    assert "sesame" not in done.stdout + done.stderr
    assert "sesame" not in server.log


def test_jobs(server: BaxServer, source: Source) -> None:
    body = {"inputUrl": source.held_url, "outputFormats": ["360p"]}
    running = server.call("POST", "/video/convert", body).json["id"]
    server.reached(running, "PROCESSING")
    waiting = server.call("POST", "/video/convert", body).json["id"]
    env = _as_client(server)

    listed = run_bax("jobs", "list", "--status", "pending", env=env)
    cancelled = run_bax("jobs", "cancel", waiting, env=env)
    refused = run_bax("jobs", "cancel", running, env=env)
    watched = run_bax("jobs", "watch", waiting, env=env)
    source.held.set()
    finished = run_bax("jobs", "watch", running, "--json", env=env)

    assert waiting in listed.stdout
    assert running not in listed.stdout
    assert (cancelled.returncode, cancelled.stdout) == (0, f"cancelled {waiting}\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "bax: only PENDING jobs can be cancelled; this one is PROCESSING\n"
    assert (watched.returncode, watched.stderr.splitlines()[-1]) == (1, f"bax: job {waiting} is CANCELLED")
    assert finished.returncode == 0
    assert json.loads(finished.stdout)["status"] == "COMPLETED"


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
async def test_ctrl_c_leaves_a_clean_state(
    server: BaxServer, source: Source, running: bool, eventually: Eventually
) -> None:
    """A job that waits is cancelled; one that runs on the server goes on, and the user is told how to follow it."""
    if not running:
        blocking = server.call("POST", "/video/convert", {"inputUrl": source.held_url}).json["id"]
        server.reached(blocking, "PROCESSING")
    before = {item["id"] for item in server.call("GET", "/video/jobs").json["items"]}
    process = await asyncio.create_subprocess_exec(
        *BAX,
        *("convert", source.held_url, *QUICK),
        env=clean_environment(_as_client(server)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )

    def made() -> str | None:
        items = server.call("GET", "/video/jobs").json["items"]
        return next((item["id"] for item in items if item["id"] not in before), None)

    try:
        job_id = await eventually(made, within=30)
        watched = f'bax_rpc_running{{rpc="{WATCH}",transport="rest"}} 1.0'.encode()
        await eventually(lambda: watched in server.call("GET", "/metrics").body, within=30)
        if running:
            server.reached(job_id, "PROCESSING")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            errors = (await process.communicate())[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    source.held.set()

    assert process.returncode == 130
    if running:
        assert f"job {job_id} goes on; follow it with `bax jobs watch {job_id}`" in errors
        assert server.finished(job_id)["status"] == "COMPLETED"
    else:
        assert f"cancelled job {job_id}" in errors
        assert server.finished(job_id)["status"] == "CANCELLED"


def test_projects_and_keys_with_the_admin_token(server: BaxServer) -> None:
    env = {"BAX_URL": server.url, "BAX_ADMIN_TOKEN": ADMIN_TOKEN}

    made = json.loads(run_bax("projects", "create", "Remote", "--json", env=env).stdout)
    key = run_bax("keys", "create", "k", "--project", made["id"], env=env).stdout.strip()
    theirs = _as_client(server, api_key=key, project_id=made["id"])
    allowed = run_bax("jobs", "list", env=theirs)
    key_id = json.loads(run_bax("keys", "list", "--project", made["id"], "--json", env=env).stdout)["items"][
        0
    ]
    run_bax("keys", "revoke", key_id["id"], "--project", made["id"], env=env)
    refused = run_bax("jobs", "list", env=theirs)

    assert allowed.stdout.endswith("0 of 0\n")
    assert (refused.returncode, refused.stderr) == (1, "bax: invalid or missing credentials\n")
    stored = json.loads(run_bax("projects", "s3", made["id"], "--bucket", "films", "--json", env=env).stdout)
    assert stored["s3Config"]["bucket"] == "films"


def test_what_a_client_lacks_is_told(server: BaxServer) -> None:
    for missing, command in (("api_key", "jobs"), ("project_id", "jobs"), ("admin_token", "keys")):
        env = {"BAX_ADMIN_TOKEN": ADMIN_TOKEN, **_as_client(server)}
        del env[f"BAX_{missing.upper()}"]
        done = run_bax(command, "list", env=env)
        assert done.returncode == 1
        assert done.stderr.startswith(f"bax: BAX_{missing.upper()} is needed with BAX_URL")


def test_a_server_that_is_away_or_is_none(server: BaxServer, source: Source) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unused.getsockname()[1]}"
        nobody = run_bax("jobs", "list", env={**_as_client(server), "BAX_URL": away})
    named = run_bax("jobs", "list", env={**_as_client(server), "BAX_URL": "http://user:sesame@127.0.0.1"})
    other = run_bax("jobs", "list", env={**_as_client(server), "BAX_URL": source.address})

    assert nobody.returncode == named.returncode == other.returncode == 1
    assert nobody.stderr.startswith(f"bax: no answer from {away}: ")
    assert named.stderr == "bax: BAX_URL must be an http or https address, without user name and query\n"
    assert other.stderr == "bax: the server answered 200; is BAX_URL a BaxCloud server?\n"
