"""The recorder as a process: kept warm, told and heard by lines, ended with its worker, killed with all it started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from adapters.recorder.process import Recorder, RecorderPool
from server.domain.egress_sources import WebSource
from server.egress.segments import until_written
from server.ports.recorder import ORPHANED_SEC, Active, Broke, Ended, Finish, NewOrders, RecorderDied
from tests.conftest import Eventually
from tests.integration.recorder.stage import Footage, plan_for, recording
from tests.people import People, Person
from tests.servers.livekit import LiveKitServer


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_one_is_kept_warm(livekit: LiveKitServer, room: str, tmp_path: Path) -> None:
    """Issue section 4: the second start takes the process that waited."""
    pool = RecorderPool()
    async with recording(pool, plan_for(livekit, room, tmp_path)) as first:
        assert pool._spare is not None
        spare = await pool._spare
        async with recording(pool, plan_for(livekit, room, tmp_path, part=1)) as second:
            assert second.recorder is spare
            assert second.recorder.pid != first.recorder.pid
            assert pool._spare is not None
            last = await pool._spare
    await pool.aclose()
    assert gone(last.pid)


async def test_a_spare_that_died_is_replaced(livekit: LiveKitServer, room: str, tmp_path: Path) -> None:
    pool = RecorderPool()
    pool.warm_up()
    assert pool._spare is not None
    spare = await pool._spare
    await spare.kill()
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.recorder.send(Finish())
        assert not (await run.hears(Ended)).media
    await pool.aclose()


async def test_who_is_wanted_gives_way_no_longer() -> None:
    """A spare whose share would take it a day to get ready is ready as soon as somebody wants it."""
    program = "from adapters.recorder import __main__ as recorder; recorder._SHARE = 1e-5; recorder.main()"
    spare = Recorder(
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
    )
    wanted = asyncio.Event()
    wanted.set()
    await spare.until_ready(wanted)
    assert spare.alive
    await spare.dismiss()


async def test_one_whose_start_is_given_up_does_not_stay(
    livekit: LiveKitServer, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """A job may be taken away while its recorder still comes up."""
    pool = RecorderPool()
    starting = asyncio.create_task(pool.start(plan_for(livekit, room, tmp_path)))
    await eventually(children)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await pool.aclose()
    assert not children()


def children() -> list[str]:
    """Recorders of this process."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in listed if b"adapters.recorder" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_nothing_of_the_servers_secrets_is_in_its_environment(pool: RecorderPool) -> None:
    pool = RecorderPool(
        environment={
            **os.environ,
            "BAX_SECRET_KEYS": "secret",
            "LIVEKIT_API_SECRET": "secret",
            "BAX_FFMPEG": "/opt/ffmpeg",
        }
    )
    pool.warm_up()
    assert pool._spare is not None
    recorder = await pool._spare
    environment = Path(f"/proc/{recorder.pid}/environ").read_bytes()
    assert b"secret" not in environment.lower()
    assert b"PATH=" in environment
    assert b"BAX_FFMPEG=/opt/ffmpeg" in environment
    await pool.aclose()


async def test_a_killed_one_is_told_of(
    livekit: LiveKitServer,
    people: People,
    pool: RecorderPool,
    room: str,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Issue section 5: what was written until then can be read."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.recorded(4.0)
        os.kill(run.recorder.pid, signal.SIGKILL)
        await eventually(lambda: run.death)
    assert "signal 9" in str(run.death)
    with pytest.raises(RecorderDied):
        await run.recorder.send(NewOrders())
    assert len(Footage.read(tmp_path / "part-000.mp4").lumas) > 30


async def test_the_end_of_its_orders_finishes_the_file(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Its worker is gone: the part is made whole."""
    await people.join(Person("ann"), room)
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.records(1.0)
        stdin = run.recorder._process.stdin
        assert stdin is not None
        stdin.close()
        assert (await run.hears(Ended)).media
        await run.recorder._process.wait()
    assert len(Footage.read(tmp_path / "part-000.mp4").lumas) > 20


async def test_one_that_cannot_finish_its_segments_leaves_them(
    livekit: LiveKitServer, people: People, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Its worker is gone and the disk takes nothing: whoever goes on does not wait for long."""
    await people.join(Person("ann"), room)
    # Whoever opens it for writing waits for a reader.
    os.mkfifo(tmp_path / "seg-000-00000.ts")
    plan = plan_for(livekit, room, tmp_path, container="", segment_sec=4)
    async with recording(pool, plan) as run:
        await run.hears(Active)
        stdin = run.recorder._process.stdin
        assert stdin is not None
        stdin.close()
        assert not await until_written(tmp_path, 0, 0.1)
        assert await until_written(tmp_path, 0, ORPHANED_SEC + 4)
        assert await run.recorder._process.wait() == 1
    assert not run.all(Ended)


async def test_killing_it_takes_what_it_started_along(eventually: Eventually) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    await Recorder(process).kill()
    await eventually(lambda: gone(child) or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


async def test_a_room_that_cannot_be_joined(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Another try may help; the message holds no token."""
    plan = plan_for(livekit, room, tmp_path, url="ws://127.0.0.1:9")
    async with recording(pool, plan) as run:
        broke = await run.hears(Broke)
    assert broke.retry
    assert "could not join the room" in broke.message
    assert plan.token not in broke.message
    assert not run.all(Ended)


async def test_a_plan_it_cannot_follow(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """What fails in the recorder itself is reported too, and is no reason to hang."""
    plan = plan_for(livekit, room, tmp_path / "missing", WebSource("about:blank"))
    async with recording(pool, plan) as run:
        await run.hears(Broke)
