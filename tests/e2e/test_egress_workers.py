"""Recordings where the API and two workers are processes of their own, on one PostgreSQL and one data directory."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from livekit import api
from livekit.protocol import egress as pb

from server.domain.layout import Rect, StageTrack, arrange
from tests.conftest import Eventually
from tests.e2e.recording_stage import Media, Stage
from tests.integration.recorder.stage import Footage, drawn_now, until_recorded
from tests.people import People, Person
from tests.processes import recorders
from tests.servers.bax import BaxServer, bax_server
from tests.servers.livekit import LiveKitServer
from tests.sinks import Sink

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("database_url", ["postgres"], indirect=True),
]

_KEY, _SECRET = "APIworkers", "workers-secret-0123456789abcdefghijk"
_ANN = Person("ann", name="Ann")
_BOB = Person("bob", name="Bob", audio=False)
_SIZE = (854, 480)
_FULL = (slice(None), slice(None))
# Design section 13: what the file may lack of the time before a death.
_LOST_SEC = 4.0


class Worker(BaxServer):
    """One of several over the same data directory, each with files of its own for what it prints."""

    def __init__(self, name: str, folder: Path, **settings: str) -> None:
        super().__init__(folder, role="worker", **settings)
        self._name = name

    def _output(self, kind: str) -> Path:
        return super()._output(f"{self._name}.{kind}")


@dataclass(frozen=True, slots=True)
class Hosts:
    """The API host's stage and the workers, none of which can be called."""

    stage: Stage
    workers: list[Worker]
    eventually: Eventually

    async def owner(self) -> Worker:
        """The one worker that records, once there is one."""

        def only() -> Worker:
            busy = [worker for worker in self.workers if recorders(worker.process.pid)]
            assert len(busy) == 1
            return busy[0]

        found: Worker = await self.eventually(only)
        return found

    async def lay_out(self, egress_id: str, layout: str, rect: Rect | None) -> None:
        """LiveKit's UpdateLayout, waited for until the file that is being written shows somebody in `rect`."""
        async with api.LiveKitAPI(self.stage.server.url, _KEY, _SECRET) as livekit:
            await livekit.egress.update_layout(pb.UpdateLayoutRequest(egress_id=egress_id, layout=layout))
        await self.writes(rect)

    async def writes(self, rect: Rect | None) -> None:
        """Once the newest part shows in `rect` somebody as they are from now on."""
        parts = sorted(self.stage.server.data_dir.glob("egress/*/part-*.mp4"))
        await until_recorded(parts[-1], partial(Footage.shows, since=drawn_now(self.stage.people), rect=rect))

    async def goes_on(self, egress_id: str, seconds: float) -> float:
        """Seconds recorded, once they are so many more than now."""
        now = (await self.stage.egress(egress_id))["progress"]["durationMs"] / 1000
        egress = await self.stage.recorded(egress_id, now + seconds)
        return float(egress["progress"]["durationMs"]) / 1000

    async def finished(self, egress_id: str) -> tuple[Media, list[dict[str, Any]]]:
        """Stopped by the API: the file and the manifest's gaps."""
        done = await self.stage.stop(egress_id)
        if done["status"] == "STARTED":
            done = await self.stage.ended(egress_id)
        assert (done["id"], done["status"]) == (egress_id, "COMPLETED"), done
        manifest = await self.stage.call("GET", f"/v1/recordings/{done['recordingId']}/manifest")
        return await self.stage.file(done["fileUrl"]), manifest["gaps"]


def _place(person: Person) -> Rect:
    """Where they stand in a grid of the two."""
    tracks = [StageTrack(who, who, who, "camera", 320, 180) for who in (_ANN.identity, _BOB.identity)]
    tiles = arrange("grid", tracks, None, *_SIZE)
    return next(tile.rect for tile in tiles if tile.track_id == person.identity)


def _hole_sec(file: Media, since: float, until: float) -> float:
    """The greatest in what was counted on the whole picture, between these seconds of the file."""
    numbers = zip(file.times, file.numbers(_FULL), strict=True)
    counted = [number for at, number in numbers if number is not None and since < at < until]
    return max(later - earlier for earlier, later in pairwise(counted)) / 30


@pytest.fixture
def servers(
    tmp_path: Path, livekit: LiveKitServer, database_url: str
) -> Iterator[tuple[BaxServer, list[Worker]]]:
    settings = {
        "database_url": database_url,
        **livekit.settings,
        "bootstrap_livekit_api_key": _KEY,
        "bootstrap_livekit_api_secret": _SECRET,
        "lease_sec": "3",
    }
    with contextlib.ExitStack() as running:
        host = running.enter_context(bax_server(tmp_path / "data", role="api", **settings))
        workers = [Worker(name, host.data_dir, public_url=host.url, **settings) for name in ("one", "two")]
        for worker in workers:
            running.callback(worker.kill)
            worker.start()
        yield host, workers


@pytest.fixture
async def hosts(
    servers: tuple[BaxServer, list[Worker]], livekit: LiveKitServer, eventually: Eventually
) -> AsyncIterator[Hosts]:
    host, workers = servers
    async with People(livekit) as people, Sink() as hook:
        stage = Stage(host, people, hook, f"room-{uuid.uuid4().hex[:8]}", eventually)
        await stage.call("POST", "/v1/webhooks", {"url": hook.url, "events": ["*"]})
        await stage.join(_ANN, _BOB)
        yield Hosts(stage, workers, eventually)


async def test_commands_reach_the_worker_that_records(hosts: Hosts) -> None:
    """Issue section 4: several workers share the work and commands reach the owner from any API host."""
    stage = hosts.stage
    egress_id = (await stage.start(mode="record", layout="grid", quality="480p"))["id"]
    owner = await hosts.owner()
    await hosts.writes(_place(_ANN))
    await hosts.writes(_place(_BOB))
    await hosts.lay_out(egress_id, "single-speaker", None)

    assert (await stage.call("POST", f"/v1/egress/{egress_id}/pause", {"mode": "cut"}))["paused"] is True
    paused_at = await stage.settled(egress_id)
    assert (await stage.call("POST", f"/v1/egress/{egress_id}/resume", {}))["paused"] is False
    await stage.recorded(egress_id, paused_at + 1.5)

    assert await hosts.owner() is owner
    file, gaps = await hosts.finished(egress_id)
    assert [gap["reason"] for gap in gaps] == ["PAUSED"]
    assert gaps[0]["startMs"] == pytest.approx(paused_at * 1000, abs=100)
    assert file.is_steady()
    assert file.numbers(_FULL)[-3] is not None
    await hosts.eventually(lambda: not recorders(owner.process.pid))


async def test_the_other_worker_goes_on_for_one_that_was_killed(hosts: Hosts) -> None:
    """Issue sections 4 and 5: kill -9 of the worker that records; the other one goes on under the same id.

    It keeps the layout that the first was told, and obeys to the next.
    """
    stage = hosts.stage
    egress_id = (await stage.start(mode="record", layout="grid", quality="480p"))["id"]
    await hosts.writes(_place(_BOB))
    await hosts.lay_out(egress_id, "single-speaker", None)
    before = await hosts.goes_on(egress_id, _LOST_SEC + 1)
    first = await hosts.owner()
    first.process.kill()
    first.process.wait()
    changed_at = await hosts.goes_on(egress_id, 2)
    second = await hosts.owner()
    assert second is not first
    await hosts.lay_out(egress_id, "grid", _place(_BOB))

    file, gaps = await hosts.finished(egress_id)
    assert [gap["reason"] for gap in gaps] == ["WORKER_LOST"]
    assert gaps[0]["startMs"] > (before - _LOST_SEC) * 1000
    assert file.is_steady()
    hole = _hole_sec(file, before - _LOST_SEC, changed_at)
    assert hole == pytest.approx(gaps[0]["durationMs"] / 1000, abs=0.4)
    assert len(stage.events("recording.started")) == 1
    await hosts.eventually(lambda: not recorders(second.process.pid))
