"""What a recorder does when LiveKit goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.recorder.process import RecorderPool
from adapters.recorder.session import Patience, record_room
from server.ports.recorder import Active, Ended, Finish, FromRecorder, Measured, TrackSeen
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, drawn_now, plan_for, recording, until_recorded
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer, livekit_server


@pytest.fixture
def own_livekit(tmp_path: Path) -> Iterator[LiveKitServer]:
    folder = tmp_path / "livekit"
    folder.mkdir()
    with livekit_server(folder) as server:
        yield server


async def test_a_restart_of_livekit_is_survived(
    own_livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Issue section 5: freeze, then card, then on with those who are back; the file has no hole."""
    async with People(own_livekit) as people:
        await people.join(Person("ann"), room)
        async with recording(pool, plan_for(own_livekit, room, tmp_path)) as run:
            file = tmp_path / "part-000.mp4"
            await until_recorded(file, lambda so_far: so_far.shows(0))
            own_livekit.kill()
            await until_recorded(file, lambda so_far: so_far.shows_nobody())
            own_livekit.start()
            await eventually(lambda: len({one.sid for one in run.all(TrackSeen)}) >= 3, within=30)
            back = drawn_now(people)
            await until_recorded(file, lambda so_far: so_far.shows(back))
            await run.recorder.send(Finish())
            ended = await run.hears(Ended)
    assert (ended.reason, ended.media) == ("stopped", True)
    assert not run.all(Measured)[-1].gaps
    shown = [number is not None for number in Footage.read(tmp_path / "part-000.mp4").numbers()]
    # The first pictures may be late.
    assert False in shown[shown.index(True) :]
    assert shown[-3]


async def test_a_livekit_that_stays_away(own_livekit: LiveKitServer, room: str, tmp_path: Path) -> None:
    """`connection_lost` after its patience, with the file whole."""
    said: list[FromRecorder] = []
    began = asyncio.Event()

    def report(one: FromRecorder) -> None:
        said.append(one)
        if isinstance(one, Active):
            loop.call_soon_threadsafe(began.set)

    loop = asyncio.get_running_loop()
    plan = plan_for(own_livekit, room, tmp_path)
    async with asyncio.timeout(60):
        running = asyncio.create_task(
            record_room(plan, asyncio.Queue(), report, Patience(freeze_sec=0.5, reconnect_sec=2.0))
        )
        await began.wait()
        await asyncio.sleep(0.5)
        own_livekit.kill()
        await running
    ended = said[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.media) == ("connection_lost", True)
    assert Footage.read(tmp_path / "part-000.mp4").lumas
