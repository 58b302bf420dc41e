"""The recorder as a process: forked, told and heard by lines, ended with its worker, killed with all it started."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from asyncio.subprocess import PIPE
from functools import partial
from pathlib import Path

import pytest
import uvloop

from adapters.recorder.fork import Forked
from adapters.recorder.process import Recorder, RecorderPool
from server.domain.egress_sources import WebSource
from server.egress.segments import until_written
from server.ports.recorder import ORPHANED_SEC, Active, Broke, Ended, Finish, Joined, NewOrders, RecorderDied
from tests.conftest import Eventually
from tests.descriptors import descriptors
from tests.integration.recorder.stage import Footage, plan_for, recording
from tests.people import People, Person
from tests.processes import children, fork_servers
from tests.servers.livekit import LiveKitServer


def gone(pid: int) -> bool:
    """Whether it has ended, reaped or not."""
    try:
        return stat(pid)[0] == "Z"
    except OSError:
        return True


def stat(pid: int) -> list[str]:
    """From the process's state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def test_all_are_forked_from_one_that_has_imported_everything(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path
) -> None:
    """Issue section 4: no start waits for imports, however many there are at once."""
    async with (
        recording(pool, plan_for(livekit, room, tmp_path)) as first,
        recording(pool, plan_for(livekit, room, tmp_path, part=1)) as second,
    ):
        pids = {first.recorder.pid, second.recorder.pid}
        (server,) = fork_servers(os.getpid())
        assert {parent_of(pid) for pid in pids} == {server}
        assert {os.getpgid(pid) for pid in pids} == pids
        # No other would live on in what is forked.
        assert [task.name for task in Path(f"/proc/{server}/task").iterdir()] == [str(server)]


async def test_recordings_outlive_the_fork_server(
    livekit: LiveKitServer, people: People, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Issue section 5: it is killed; who records goes on, and who comes next gets another one."""
    await people.join(Person("ann"), room)
    pool = RecorderPool()
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await run.recorded(1.0)
        (before,) = fork_servers(os.getpid())
        os.kill(before, signal.SIGKILL)
        async with recording(pool, plan_for(livekit, room, tmp_path, part=1)) as after:
            await after.recorded(1.0)
            assert fork_servers(os.getpid()) != [before]
            await run.goes_on(30)
            os.kill(run.recorder.pid, signal.SIGKILL)
            await eventually(lambda: run.death)
            assert gone(run.recorder.pid)
            await after.recorder.send(Finish())
            assert (await after.hears(Ended)).media
    await pool.aclose()
    assert not fork_servers(os.getpid())


async def test_a_fork_server_that_dies_every_time_is_told_of(
    livekit: LiveKitServer, pool: RecorderPool, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    starting = asyncio.create_task(pool.start(plan_for(livekit, room, tmp_path)))
    for _ in range(2):
        await eventually(lambda: fork_servers(os.getpid()))
        (victim,) = fork_servers(os.getpid())
        os.kill(victim, signal.SIGKILL)
        await eventually(partial(gone_from_here, victim))
    with pytest.raises(RecorderDied, match="the fork server ended"):
        await starting
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        assert not gone(run.recorder.pid)


async def test_a_killed_one_is_told_of_when_nobody_reaps_it(
    livekit: LiveKitServer, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """The fork server stands still; whoever waits for the recorder does not."""
    pool = RecorderPool()
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        (server,) = fork_servers(os.getpid())
        os.kill(server, signal.SIGSTOP)
        os.kill(run.recorder.pid, signal.SIGKILL)
        await eventually(lambda: run.death)
    await pool.aclose()
    assert not fork_servers(os.getpid())


async def test_none_is_started_after_the_pool_was_closed(
    livekit: LiveKitServer, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    pool = RecorderPool()
    starting = asyncio.create_task(pool.start(plan_for(livekit, room, tmp_path)))
    await eventually(lambda: fork_servers(os.getpid()))
    await pool.aclose()
    with pytest.raises(RecorderDied, match="no recorder is needed"):
        await starting
    assert not fork_servers(os.getpid())


async def test_one_whose_start_is_given_up_does_not_stay(
    livekit: LiveKitServer, room: str, tmp_path: Path, eventually: Eventually
) -> None:
    """A job may be taken away while its recorder still comes up."""
    pool = RecorderPool()
    starting = asyncio.create_task(pool.start(plan_for(livekit, room, tmp_path)))
    await eventually(lambda: fork_servers(os.getpid()))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    (server,) = fork_servers(os.getpid())
    # The next one is forked after it.
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        await eventually(lambda: children(server) == [run.recorder.pid])
    await pool.aclose()
    assert not fork_servers(os.getpid())


def gone_from_here(pid: int) -> bool:
    return pid not in fork_servers(os.getpid())


def parent_of(pid: int) -> int:
    return int(stat(pid)[1])


async def test_nothing_of_the_servers_secrets_is_in_its_environment(
    livekit: LiveKitServer, room: str, tmp_path: Path
) -> None:
    pool = RecorderPool(
        environment={
            **os.environ,
            "BAX_SECRET_KEYS": "secret",
            "LIVEKIT_API_SECRET": "secret",
            "BAX_FFMPEG": "/opt/ffmpeg",
        }
    )
    async with recording(pool, plan_for(livekit, room, tmp_path)) as run:
        environment = Path(f"/proc/{run.recorder.pid}/environ").read_bytes()
    assert b"secret" not in environment.lower()
    assert b"PATH=" in environment
    assert b"BAX_FFMPEG=/opt/ffmpeg" in environment
    await pool.aclose()


def test_nothing_stays_open_on_the_servers_event_loop(
    livekit: LiveKitServer, room: str, tmp_path: Path
) -> None:
    """uvloop closes a pipe that has ended only when it is told to, and the server runs for months."""

    async def record(pool: RecorderPool, part: int) -> None:
        async with recording(pool, plan_for(livekit, room, tmp_path, part=part)) as run:
            await run.hears(Joined)
        await run.recorder._process.last_words()

    async def main() -> list[int]:
        pool = RecorderPool()
        counts = []
        for part in range(4):
            await record(pool, part)
            counts.append(len(descriptors()))
        await pool.aclose()
        return counts

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            counts = runner.run(main())
    finally:
        gc.enable()
    assert counts[-1] <= counts[0], counts


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
        run.recorder._process.orders.write_eof()
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
        run.recorder._process.orders.write_eof()
        assert not await until_written(tmp_path, 0, 0.1)
        assert await until_written(tmp_path, 0, ORPHANED_SEC + 4)
        await run.recorder._process.wait()
        assert await run.recorder._process.code() == 1
    assert not run.all(Ended)


async def test_killing_it_takes_what_it_started_along(eventually: Eventually) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    child = int(await process.stdout.readline())
    forked = Forked(process.stdin, process.stdout, process.stderr)
    forked.born(process.pid)
    await Recorder(forked).kill()
    await process.wait()
    await eventually(lambda: gone(child))


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
