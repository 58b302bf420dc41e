"""Whoever records dies with SIGKILL: the recording goes on under its id, or is finished from what is on disk."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.e2e.recording_stage import Media, Stage
from tests.people import People, Person
from tests.servers.bax import BaxServer, bax_server
from tests.servers.livekit import LiveKitServer
from tests.sinks import Sink

_ANN = Person("ann", name="Ann", width=320, height=180)
_FULL = (slice(None), slice(None))
# Design section 13: what the file may lack of the time before a death.
_LOST_SEC = 4.0
_RECORDER = b"adapters.recorder"


@pytest.fixture
def server(tmp_path: Path, livekit: LiveKitServer) -> Iterator[BaxServer]:
    settings = {
        "livekit_url": livekit.address.url,
        "livekit_api_key": livekit.address.api_key,
        "livekit_api_secret": livekit.address.api_secret,
        "lease_sec": "3",
    }
    with bax_server(tmp_path / "data", **settings) as running:
        yield running


@pytest.fixture
async def stage(server: BaxServer, livekit: LiveKitServer, eventually: Eventually) -> AsyncIterator[Stage]:
    room = f"room-{uuid.uuid4().hex[:8]}"
    async with People(livekit) as people, Sink() as hook:
        stage = Stage(server, people, hook, room, eventually)
        await stage.call("POST", "/v1/webhooks", {"url": hook.url, "events": ["*"]})
        await stage.join(_ANN)
        yield stage


def recorders_of(server: BaxServer) -> list[int]:
    """Recorder processes of this server, the one that waits included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if _RECORDER in arguments and parent == server.process.pid:
            found.append(int(folder.name))
    return found


def _kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def _finished(stage: Stage, egress_id: str) -> tuple[dict[str, Any], Media, list[dict[str, Any]]]:
    """The stopped egress, its file and the manifest's gaps."""
    done = await stage.stop(egress_id)
    if done["status"] == "STARTED":
        done = await stage.ended(egress_id)
    assert done["status"] == "COMPLETED", done
    manifest = await stage.call("GET", f"/v1/recordings/{done['recordingId']}/manifest")
    return done, await stage.file(done["fileUrl"]), manifest["gaps"]


def _lost_sec(file: Media) -> float:
    """The greatest hole in what the participant counted, seconds."""
    counted = [number for number in file.numbers(_FULL) if number is not None]
    return max(later - earlier for earlier, later in pairwise(counted)) / 30


def _check(file: Media, gaps: list[dict[str, Any]], reason: str) -> None:
    assert file.is_steady()
    assert [gap["reason"] for gap in gaps] == [reason]
    assert _lost_sec(file) == pytest.approx(gaps[0]["durationMs"] / 1000, abs=0.4)


async def test_a_killed_recorder_is_followed_by_another(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: kill -9 of the recorder; the egress stays STARTED, the gap is in the manifest."""
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 3)
    _kill(recorders_of(server))
    await stage.recorded(egress["id"], 5, within=20)
    done, file, gaps = await _finished(stage, egress["id"])
    assert done["id"] == egress["id"]
    _check(file, gaps, "RECORDER_LOST")
    assert _lost_sec(file) < _LOST_SEC
    assert len(stage.events("recording.started")) == 1


@pytest.mark.parametrize("with_recorders", [False, True], ids=["worker", "host"])
async def test_a_killed_worker_is_followed_by_another(
    stage: Stage, server: BaxServer, *, with_recorders: bool
) -> None:
    """Issue section 5: kill -9 of the worker, alone or with its recorders as when the host dies."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 3)
    recorders = recorders_of(server) if with_recorders else []
    server.process.kill()
    server.process.wait()
    if recorders:
        _kill(recorders)
    server.start()
    recorded = before["progress"]["durationMs"] / 1000
    await stage.recorded(egress["id"], recorded + 2, within=30)
    _, file, gaps = await _finished(stage, egress["id"])
    _check(file, gaps, "WORKER_LOST")
    # The time without a worker is a gap, but of what was there before at most four seconds are missing.
    assert gaps[0]["startMs"] > (recorded - _LOST_SEC) * 1000
    assert len(stage.events("recording.started")) == 1


async def test_a_drained_worker_hands_the_recording_over(stage: Stage, server: BaxServer) -> None:
    """Design section 5: SIGTERM, a new server; one file, nothing of what was recorded is lost."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 2)
    assert server.stop() == 0
    server.start()
    recorded = before["progress"]["durationMs"]
    await stage.recorded(egress["id"], recorded / 1000 + 2, within=30)
    _, file, gaps = await _finished(stage, egress["id"])
    assert file.is_steady()
    assert len(gaps) == 1
    assert gaps[0]["startMs"] >= recorded


async def test_a_room_that_ended_meanwhile_is_finished_from_disk(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: nobody was there to see the room's end; what was recorded is delivered all the same."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 3)
    recorders = recorders_of(server)
    server.process.kill()
    server.process.wait()
    _kill(recorders)
    await stage.delete_room()
    server.start()
    done = await stage.ended(egress["id"], within=60)
    assert done["status"] == "COMPLETED", done
    file = await stage.file(done["fileUrl"])
    assert file.is_steady()
    assert file.seconds > before["progress"]["durationMs"] / 1000 - _LOST_SEC
