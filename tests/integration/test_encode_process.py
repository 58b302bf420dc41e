"""The supervisor: nothing outlives its owner, nothing hangs, nothing sees more than it must."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from adapters.ffmpeg.guard import landlock_abi
from adapters.ffmpeg.process import Files, Heartbeat, Limits, Outcome, run_guarded
from tests.conftest import Eventually
from tests.integration.fake_ffmpeg import fake_ffmpeg

_ENDLESS = "echo $$\nwhile true; do sleep 1; done"
needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def run_script(
    folder: Path, script: str, *, files: Files | None = None, limits: Limits | None = None
) -> Outcome:
    binary = fake_ffmpeg(folder, script)
    return await run_guarded(
        lambda _fds: (binary,),
        cwd=folder,
        files=files or Files(),
        limits=limits or Limits(),
        wall_timeout_sec=20,
    )


async def test_dies_with_its_parent(tmp_path: Path, eventually: Eventually) -> None:
    """2.6: kill -9 of the worker leaves no encoder behind."""
    binary = fake_ffmpeg(tmp_path, _ENDLESS)
    command = (sys.executable, "-m", "tests.integration.kill_stage", binary, str(tmp_path))
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not alive(pid))


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel shares by process alone")
async def test_yields_to_other_sessions(tmp_path: Path) -> None:
    """A session of its own is scheduled as a group: its niceness must be that of the group, or recordings suffer."""
    binary = fake_ffmpeg(tmp_path, _ENDLESS)
    seen: list[str] = []
    told = asyncio.Event()

    async def look(line: str) -> None:
        seen.append(Path(f"/proc/{int(line)}/autogroup").read_text())
        told.set()

    limits = Limits(nice=7)
    running = asyncio.create_task(
        run_guarded(lambda _fds: (binary,), cwd=tmp_path, files=Files(), limits=limits, on_stdout=look)
    )
    await told.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert seen[0].endswith("nice 7\n")


async def test_cancelling_kills_the_whole_group(tmp_path: Path, eventually: Eventually) -> None:
    """Cancellation returns only when the process and its children are killed, even if they ignore being asked."""
    binary = fake_ffmpeg(tmp_path, f"trap '' TERM\nsleep 600 &\necho $!\n{_ENDLESS}")
    pids: list[int] = []
    told = asyncio.Event()

    async def collect(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            told.set()

    running = asyncio.create_task(
        run_guarded(lambda _fds: (binary,), cwd=tmp_path, files=Files(), limits=Limits(), on_stdout=collect)
    )
    await told.wait()
    assert all(alive(pid) for pid in pids)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    # A child's last moments are the kernel's.
    await eventually(lambda: not any(alive(pid) for pid in pids), within=5)


async def test_a_handlers_exception_ends_the_process(tmp_path: Path) -> None:
    """What an upload raises reaches the caller as it is, and the encoder is gone by then."""
    binary = fake_ffmpeg(tmp_path, _ENDLESS)
    pids: list[int] = []

    async def refuse(line: str) -> None:
        pids.append(int(line))
        raise TimeoutError("the storage is down")

    with pytest.raises(TimeoutError, match="the storage is down"):
        await run_guarded(
            lambda _fds: (binary,), cwd=tmp_path, files=Files(), limits=Limits(), on_stdout=refuse
        )
    assert not alive(pids[0])


async def test_silence_is_noticed(tmp_path: Path) -> None:
    """2.8 case 15: a process that stops moving is killed."""
    binary = fake_ffmpeg(tmp_path, _ENDLESS)
    outcome = await run_guarded(
        lambda _fds: (binary,),
        cwd=tmp_path,
        files=Files(),
        limits=Limits(),
        heartbeat=Heartbeat(),
        stall_timeout_sec=0.2,
    )
    assert outcome.stalled


async def test_slow_handlers_are_no_silence(tmp_path: Path) -> None:
    """A storage that takes its time after the encoder has ended is not taken for a stalled encoder."""
    binary = fake_ffmpeg(tmp_path, "echo done")
    released = asyncio.Event()
    # Longer than a busy machine takes to start and end it, which is silence too.
    silence_sec = 3.0

    async def slowly(_line: str) -> None:
        asyncio.get_running_loop().call_later(silence_sec + 0.5, released.set)
        await released.wait()

    outcome = await run_guarded(
        lambda _fds: (binary,),
        cwd=tmp_path,
        files=Files(),
        limits=Limits(),
        heartbeat=Heartbeat(),
        stall_timeout_sec=silence_sec,
        on_stdout=slowly,
    )
    assert not outcome.stalled
    assert released.is_set()


async def test_wall_time_is_bounded(tmp_path: Path) -> None:
    """2.2: a probe that never ends is killed."""
    binary = fake_ffmpeg(tmp_path, _ENDLESS)
    outcome = await run_guarded(
        lambda _fds: (binary,), cwd=tmp_path, files=Files(), limits=Limits(), wall_timeout_sec=0.3
    )
    assert outcome.stalled


async def test_processor_time_is_bounded(tmp_path: Path) -> None:
    """2.2: RLIMIT_CPU ends what only computes."""
    outcome = await run_script(tmp_path, "while true; do :; done", limits=Limits(cpu_sec=1))
    assert outcome.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


async def test_file_size_is_bounded(tmp_path: Path) -> None:
    """2.2: RLIMIT_FSIZE bounds every file that is written."""
    outcome = await run_script(
        tmp_path,
        "exec head -c 1000000 /dev/zero > big",
        files=Files(write=(tmp_path,)),
        limits=Limits(file_size=10_000),
    )
    assert outcome.returncode != 0
    assert (tmp_path / "big").stat().st_size <= 10_000


async def test_no_core_dumps_and_lower_priority(tmp_path: Path) -> None:
    outcome = await run_script(tmp_path, "ulimit -c >&2; nice >&2", limits=Limits(nice=7))
    assert outcome.log == ("0", str(os.nice(0) + 7))


async def test_the_log_is_bounded(tmp_path: Path) -> None:
    """A hostile file that makes FFmpeg complain without end fills no memory."""
    outcome = await run_script(tmp_path, "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done")
    assert len(outcome.log) == 200
    assert outcome.log[-1] == "line 2999"


async def test_the_environment_is_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.3: secrets in our environment stay ours."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-marker")
    outcome = await run_script(tmp_path, "env >&2")
    assert not any("hidden-marker" in line for line in outcome.log)


@needs_landlock
async def test_files_of_others_are_closed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """2.2: even a decoder that runs an attacker's code reads no other job and writes only its own folder."""
    other = tmp_path_factory.mktemp("other") / "secret"
    other.write_text("other tenant")
    source = tmp_path_factory.mktemp("source") / "input"
    source.write_text("own input")
    script = f"cat {source} >&2; cat {other} >&2; echo x > {other}; echo x > {source}; echo mine > here; cat here >&2"
    outcome = await run_script(tmp_path, script, files=Files(read=(source,), write=(tmp_path,)))
    text = "\n".join(outcome.log)
    assert "own input" in text
    assert "mine" in text
    assert "other tenant" not in text
    assert other.read_text() == "other tenant"
    assert source.read_text() == "own input"


@needs_landlock
async def test_the_network_is_closed(tmp_path: Path) -> None:
    """2.1: FFmpeg never opens a connection, whatever the file says."""
    if landlock_abi() < 4:
        pytest.skip("this kernel's Landlock does not cover TCP")
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    program = f"import socket; socket.create_connection(('127.0.0.1', {port})); print('connected')"
    lines: list[str] = []

    async def collect(line: str) -> None:
        lines.append(line)

    outcome = await run_guarded(
        lambda _fds: (sys.executable, "-I", "-S", "-c", program),
        cwd=tmp_path,
        files=Files(read=(Path(sys.prefix), Path(sys.base_prefix))),
        limits=Limits(),
        on_stdout=collect,
    )
    listener.close()
    await listener.wait_closed()
    assert outcome.returncode != 0
    assert "connected" not in lines
    assert any("PermissionError" in line for line in outcome.log)
