"""Supervises one media process: own session, limits, bounded log, stall watchdog, and a sure end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ASK_TIMEOUT_SEC = 2.0
KILL_TIMEOUT_SEC = 10.0
LOG_LINES = 200
LINE_BYTES = 4096
_GUARD = str(Path(__file__).with_name("guard.py"))
_GIB = 1 << 30

LineHandler = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one process (bytes, CPU seconds); None leaves one as it is.

    Address space, not memory in use: FFmpeg reserves thread stacks and allocator arenas per core.
    """

    address_space: int | None = 4 * _GIB + (os.cpu_count() or 1) * (_GIB // 4)
    file_size: int | None = None
    cpu_sec: int | None = None
    open_files: int = 256
    nice: int = 5

    def as_rlimits(self) -> dict[str, int]:
        chosen = {"AS": self.address_space, "FSIZE": self.file_size, "CPU": self.cpu_sec}
        return {"CORE": 0, "NOFILE": self.open_files} | {k: v for k, v in chosen.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended. `returncode` negative = signal; `stalled` if a watchdog killed it; `log` its stderr tail."""

    returncode: int
    stalled: bool
    log: tuple[str, ...]


class Silence(Exception):
    """The watchdog's bark."""


class Heartbeat:
    """Touched whenever the work moves on; the watchdog measures silence against it."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()

    def touch(self) -> None:
        self._moved.set()

    async def watch(self, silence_sec: float) -> None:
        """Raise Silence after `silence_sec` without a touch."""
        while True:
            self._moved.clear()
            try:
                async with asyncio.timeout(silence_sec):
                    await self._moved.wait()
            except TimeoutError:
                raise Silence from None
            # Touches come many times a second; one look per period is enough.
            await asyncio.sleep(min(1.0, silence_sec / 10))


@dataclass(frozen=True, slots=True)
class Files:
    """What a process may see besides the system's own libraries; it may change only what is below `write`.

    `names` are folders whose file names, not contents, may be read.
    """

    names: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


async def run_guarded(
    command: Callable[[tuple[int, ...]], Sequence[str]],
    *,
    cwd: Path,
    files: Files,
    limits: Limits,
    wall_timeout_sec: float | None = None,
    stall_timeout_sec: float | None = None,
    heartbeat: Heartbeat | None = None,
    on_stdout: LineHandler | None = None,
    on_pipes: Sequence[LineHandler] = (),
) -> Outcome:
    """Runs a command until it ends, stalls, or the caller's task is cancelled; never leaves it behind.

    One extra pipe is opened per handler in `on_pipes`; `command` gets the numbers of their write ends, which the
    process inherits, and returns the argument vector. Handlers are awaited one line at a time per pipe; an exception
    of one ends the process and is raised. `stall_timeout_sec` runs only while the process does: slow handlers are
    not its fault.
    """
    log: deque[str] = deque(maxlen=LOG_LINES)

    async def keep(line: str) -> None:
        log.append(line)

    stalled = False
    async with _open_pipes(len(on_pipes)) as (readers, write_ends):
        inherited = tuple(write_ends)
        process = await _spawn(command(inherited), cwd=cwd, files=files, limits=limits, inherit=inherited)
        _close(write_ends)
        assert process.stdout is not None
        assert process.stderr is not None
        deadline = asyncio.timeout(wall_timeout_sec)
        try:
            async with deadline, asyncio.TaskGroup() as group:
                group.create_task(_each_line(process.stderr, keep))
                group.create_task(_each_line(process.stdout, on_stdout))
                for reader, handler in zip(readers, on_pipes, strict=True):
                    group.create_task(_each_line(reader, handler))
                if heartbeat is not None and stall_timeout_sec is not None:
                    watchdog = group.create_task(heartbeat.watch(stall_timeout_sec))
                    group.create_task(process.wait()).add_done_callback(lambda _: watchdog.cancel())
            await process.wait()
        except TimeoutError:
            if not deadline.expired():
                raise
            stalled = True
        except BaseExceptionGroup as failures:
            first = _first(failures)
            if not isinstance(first, Silence):
                raise first from None
            stalled = True
        finally:
            await stop(process)
    return Outcome(process.returncode or 0, stalled, tuple(log))


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ask (SIGTERM), then kill the whole process group; returns when the process is reaped."""
    if process.returncode is not None:
        return
    try:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_TIMEOUT_SEC):
                await process.wait()
    finally:
        if process.returncode is None:
            _signal_group(process, signal.SIGKILL)
            async with asyncio.timeout(KILL_TIMEOUT_SEC):
                await process.wait()


async def _spawn(
    argv: Sequence[str], *, cwd: Path, files: Files, limits: Limits, inherit: tuple[int, ...]
) -> asyncio.subprocess.Process:
    order = {
        "parent": os.getpid(),
        "limits": limits.as_rlimits(),
        "nice": limits.nice,
        "list": [str(path.resolve()) for path in files.names],
        "read": [str(path.resolve()) for path in files.read],
        "write": [str(path.resolve()) for path in files.write],
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        _GUARD,
        json.dumps(order),
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        pass_fds=inherit,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
    )


@contextlib.asynccontextmanager
async def _open_pipes(count: int) -> AsyncIterator[tuple[list[asyncio.StreamReader], list[int]]]:
    loop = asyncio.get_running_loop()
    readers: list[asyncio.StreamReader] = []
    transports: list[asyncio.ReadTransport] = []
    write_ends: list[int] = []
    try:
        for _ in range(count):
            read_end, write_end = os.pipe()
            write_ends.append(write_end)
            reader = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                functools.partial(asyncio.StreamReaderProtocol, reader), os.fdopen(read_end, "rb", 0)
            )
            readers.append(reader)
            transports.append(transport)
        yield readers, write_ends
    finally:
        _close(write_ends)
        for transport in transports:
            transport.close()


def _close(fds: list[int]) -> None:
    """Empties the list: a number that was closed once may by then be somebody else's file."""
    while fds:
        os.close(fds.pop())


async def _each_line(reader: asyncio.StreamReader, handler: LineHandler | None) -> None:
    """Lines without their end; overlong ones are cut, so that a hostile file cannot fill memory through the log."""
    rest = b""
    while chunk := await reader.read(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-LINE_BYTES:]
        if handler is not None:
            for line in lines:
                await handler(line[:LINE_BYTES].decode("utf-8", "replace").rstrip())
    if rest and handler is not None:
        await handler(rest.decode("utf-8", "replace").rstrip())


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The guard starts its own session, so its pid is the group's id.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
