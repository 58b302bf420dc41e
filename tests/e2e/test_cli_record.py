"""`bax record` at a real server, with people in a room of a real LiveKit."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.e2e.recording_stage import Stage, decoded
from tests.people import People, Person
from tests.servers.bax import (
    ADMIN_TOKEN,
    API_KEY,
    BAX,
    PROJECT,
    BaxServer,
    bax_server,
    clean_environment,
    run_bax,
)
from tests.servers.livekit import LiveKitServer
from tests.servers.s3 import free_port
from tests.sinks import Sink

_ANN = Person("ann", name="Ann", width=640, height=360)


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory, livekit: LiveKitServer) -> Iterator[BaxServer]:
    """The API alone, which may be stopped while the worker beside it records."""
    folder = tmp_path_factory.mktemp("record") / "bax"
    settings = {
        **livekit.settings,
        "http_port": str(free_port()),
    }
    with bax_server(folder, "api", **settings) as api, bax_server(folder, "worker", **settings):
        yield api


@pytest.fixture
async def stage(
    api_server: BaxServer, livekit: LiveKitServer, eventually: Eventually
) -> AsyncIterator[Stage]:
    async with People(livekit) as people, Sink() as hook:
        stage = Stage(api_server, people, hook, f"room-{uuid.uuid4().hex[:8]}", eventually)
        await stage.join(_ANN)
        yield stage


def _environment(server: BaxServer, key: str = API_KEY) -> dict[str, str]:
    return {"BAX_URL": server.url, "BAX_API_KEY": key, "BAX_PROJECT_ID": PROJECT}


@asynccontextmanager
async def _recording(
    stage: Stage, *options: str, key: str = API_KEY
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(*BAX, "record", stage.room, "--quality", "480p", *options),
        env=clean_environment(_environment(stage.server, key)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _egress_id(stage: Stage, eventually: Eventually) -> str:
    async def made() -> str | None:
        items = (await stage.call("GET", f"/v1/egress?roomName={stage.room}"))["items"]
        return items[0]["id"] if items else None

    found: str = await eventually(made, within=30)
    return found


@pytest.mark.parametrize(("suffix", "codecs"), [("mp4", {"h264", "aac"}), ("webm", {"vp9", "opus"})])
async def test_ctrl_c_fetches_what_was_recorded(
    stage: Stage, tmp_path: Path, eventually: Eventually, suffix: str, codecs: set[str]
) -> None:
    """`bax record ROOM --layout speaker -o out.mp4`, and the same for another type; a restart in between is survived."""
    target = tmp_path / f"out.{suffix}"
    async with _recording(stage, "--layout", "speaker", "-o", str(target)) as process:
        egress_id = await _egress_id(stage, eventually)
        egress = await stage.recorded(egress_id, 1)
        await asyncio.to_thread(stage.server.stop)
        await asyncio.to_thread(stage.server.start)
        await stage.recorded(egress_id, egress["progress"]["durationMs"] / 1000 + 1)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            out, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()
    assert (egress["layout"], egress["file"]["fileType"]) == ("speaker", suffix.upper())
    assert "COMPLETED" in out.decode()
    assert set(decoded(target.read_bytes()).codecs) == codecs


async def test_an_unknown_suffix_starts_nothing(stage: Stage, tmp_path: Path) -> None:
    ran = await asyncio.to_thread(
        run_bax, "record", stage.room, "-o", str(tmp_path / "out.mkv"), env=_environment(stage.server)
    )
    assert ran.returncode == 2
    assert "Invalid value for -o: out.mkv must end in one of .mp4, .ogg, .webm" in ran.stderr
    assert (await stage.call("GET", f"/v1/egress?roomName={stage.room}"))["items"] == []


async def test_who_loses_sight_of_the_egress_is_told_its_id(stage: Stage, eventually: Eventually) -> None:
    """Here because the key is revoked; when nobody answers any more it takes a minute to come to the same."""
    admin = {"BAX_URL": stage.server.url, "BAX_ADMIN_TOKEN": ADMIN_TOKEN}
    made = await asyncio.to_thread(run_bax, "keys", "create", "k", "--project", PROJECT, "--json", env=admin)
    key = json.loads(made.stdout)
    async with _recording(stage, key=key["key"]) as process:
        egress_id = await _egress_id(stage, eventually)
        await stage.recorded(egress_id, 1)
        await asyncio.to_thread(run_bax, "keys", "revoke", key["id"], "--project", PROJECT, env=admin)
        async with asyncio.timeout(60):
            errors = (await process.communicate())[1].decode()
    await stage.stop(egress_id)

    assert process.returncode == 1
    assert f"`GET {stage.server.url}/v1/egress/{egress_id}` shows it" in errors
