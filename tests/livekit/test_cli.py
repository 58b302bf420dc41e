"""LiveKit's own command line, unmodified, given our URL alone (LK-06): where this machine has it.

The clients that it is made of are called in test_go_clients.py everywhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import jwt
import pytest
from livekit import api, rtc
from livekit.protocol import room as pb

from adapters.livekit.binary import cached_binary
from tests.conftest import Eventually
from tests.livekit.stage import OWN, LiveKitStage

_PACKAGE = "github.com/livekit/livekit-cli/v2/cmd/lk"
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_TIMEOUT_SEC = 60


@pytest.fixture
def lk() -> Path:
    """LK names it; else the one on PATH, or where our other tools are kept."""
    named = os.environ.get("LK") or shutil.which("lk")
    found = Path(named) if named else cached_binary().with_name("lk")
    if not found.exists():
        pytest.skip(f"there is no lk on this machine: GOBIN={found.parent} go install {_PACKAGE}@latest")
    return found


async def run(lk: Path, stage: LiveKitStage, home: Path, *arguments: str) -> str:
    """What it printed; it must have succeeded. It finds no configuration but ours."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LIVEKIT_URL": stage.url,
        "LIVEKIT_API_KEY": OWN.api_key,
        "LIVEKIT_API_SECRET": OWN.api_secret,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [str(lk), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SEC,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def rooms_of(stage: LiveKitStage) -> list[str]:
    async with api.LiveKitAPI(stage.url, OWN.api_key, OWN.api_secret) as client:
        return [room.name for room in (await client.room.list_rooms(pb.ListRoomsRequest())).rooms]


async def test_rooms_participants_and_tokens(
    lk: Path, stage: LiveKitStage, tmp_path: Path, eventually: Eventually
) -> None:
    """create, list, participants, token create and delete do what they do with LiveKit itself."""
    await run(lk, stage, tmp_path, "room", "create", "from-lk")
    created = await rooms_of(stage)
    listed = await run(lk, stage, tmp_path, "room", "list", "--json")
    printed = await run(
        lk, stage, tmp_path, "token", "create", "--join", "--room", "from-lk", "--identity", "alice"
    )
    token = _TOKEN.search(printed)
    assert token is not None, printed
    claims = jwt.decode(token[0], OWN.api_secret, algorithms=["HS256"])
    alice = rtc.Room()
    await alice.connect(stage.url.replace("http", "ws", 1), token[0])
    try:

        async def is_listed() -> bool:
            return "alice" in await run(lk, stage, tmp_path, "room", "participants", "list", "from-lk")

        await eventually(is_listed, every=0.5)
    finally:
        await alice.disconnect()
    await run(lk, stage, tmp_path, "room", "delete", "from-lk")

    assert created == ["from-lk"]
    assert "from-lk" in listed
    assert (claims["sub"], claims["video"]["room"]) == ("alice", "from-lk")
    assert await rooms_of(stage) == []
