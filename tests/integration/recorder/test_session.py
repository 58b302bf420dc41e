"""A recorder in a real room: what it records is what was shown and said there."""

from __future__ import annotations

from pathlib import Path

from adapters.recorder.process import RecorderPool
from server.ports.recorder import Active, Ended, Finish, Joined, Measured, TrackSeen
from tests.integration.recorder.stage import Footage, plan_for, recording
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer


async def test_a_room_becomes_a_file(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """EG-01, RC-01: one participant, from the first picture to the order to finish."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(2.5)
        await run.recorder.send(Finish())
        ended = await run.hears(Ended)
    assert ended.media
    assert ended.reason == "stopped"
    assert run.all(Joined)[0].room_id.startswith("RM_")
    assert {(one.media, one.identity) for one in run.all(TrackSeen)} == {("video", "ann"), ("audio", "ann")}
    footage = Footage.read(tmp_path / "part-000.mp4")
    numbers = footage.numbers()
    assert numbers.count(None) == 0
    assert len(set(numbers)) > 30
    assert footage.beeps()
    last = run.all(Measured)[-1]
    assert abs(last.duration_ms - len(footage.lumas) * 1000 / 30) <= 40
    assert abs(ended.ended_at - run.all(Active)[0].started_at - last.duration_ms * 1_000_000) < 40_000_000
