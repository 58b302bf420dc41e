"""The worker's side of the fork server (`python -m adapters.recorder`): asks it for recorder processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Mapping
from typing import BinaryIO

import structlog

from adapters.recorder.children import child_environment, module_command
from adapters.recorder.scrub import scrubbed
from server.ports.recorder import RecorderDied

_log = structlog.get_logger("recorder")
_MAX_LINE_BYTES = 1 << 20
_LINE_CHARS = 2000
_KEPT_LINES = 5
_MESSAGE_BYTES = 64
# With the imports of one that has just been started, on a machine that is busy.
_FORK_SEC = 30.0
_TELL_SEC = 1.0
# Dozens of threads allocate pictures: few arenas, as each keeps what was freed in it, and no fresh pages for each one.
# The SDK's tasks only hand media to Python, one at a time: a second thread for them is woken for nothing. Threads of
# numpy's own would not survive the fork.
_TUNING = {
    "TOKIO_WORKER_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
}


class ForkServerDied(RecorderDied):
    """Before it forked this one."""


class LastWords:
    """A process's standard error: goes to our log, without what opens doors."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.pid = 0
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listening = asyncio.create_task(self._listen(), name="recorder's log")

    async def last(self) -> str:
        """The last line, when the process has closed the stream; "" without one."""
        await self._listening
        return self._lines[-1] if self._lines else ""

    async def _listen(self) -> None:
        while True:
            try:
                line = await self._stream.readline()
            except ValueError:
                continue
            if not line:
                return
            text = scrubbed(line.decode(errors="replace").rstrip())[:_LINE_CHARS]
            if text:
                self._lines.append(text)
                _log.warning(text, pid=self.pid)


class Forked:
    """A recorder process, the leader of its own group. `orders` and `reports` are its standard input and output."""

    def __init__(
        self, orders: asyncio.StreamWriter, reports: asyncio.StreamReader, log: asyncio.StreamReader
    ) -> None:
        self.pid = 0
        self.orders, self.reports = orders, reports
        self._words = LastWords(log)
        self._born: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._code: int | None = None
        self._code_told = asyncio.Event()

    async def until_born(self) -> None:
        """Raise ForkServerDied."""
        await asyncio.shield(self._born)

    async def wait(self) -> None:
        """Until it has ended, whoever is there to reap it."""
        await self._ended.wait()

    async def code(self) -> int | None:
        """Of one that has ended; negative for a signal, None when nobody can tell."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_SEC):
                await self._code_told.wait()
        return self._code

    async def last_words(self) -> str:
        """The last line of its log once it is gone; "" without one."""
        return await self._words.last()

    def born(self, pid: int) -> None:
        self.pid = self._words.pid = pid
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            self._ended.set()
        except OSError as error:
            # Nobody could tell when it ends.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self.stillborn(f"the recorder can't be watched: {error.strerror}")
            return
        else:
            loop = asyncio.get_running_loop()
            loop.add_reader(watched, self._on_end, loop, watched)
        self._born.set_result(None)

    def stillborn(self, why: str) -> None:
        self._born.set_exception(ForkServerDied(why))
        # Nobody may wait for it any more, which is no error.
        self._born.exception()
        self._ended.set()

    def tell(self, code: int | None) -> None:
        self._code = code
        self._code_told.set()

    def _on_end(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        loop.remove_reader(watched)
        os.close(watched)
        self._ended.set()


class ForkServer:
    """Started by `ForkServer.start`; recorders outlive it."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        assert process.stderr is not None
        self.alive = True
        self._process = process
        self._control = control
        self._words = LastWords(process.stderr)
        self._words.pid = process.pid
        self._asked: deque[Forked] = deque()
        self._forked: dict[int, Forked] = {}
        self._listening = asyncio.create_task(self._listen(), name="fork server")

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> ForkServer:
        """It needs a moment until it forks; who asks meanwhile waits for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0)
        with contextlib.ExitStack() as failing, theirs:
            failing.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                *module_command("adapters.recorder", str(theirs.fileno())),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=PIPE,
                pass_fds=[theirs.fileno()],
                limit=_MAX_LINE_BYTES,
                env={**child_environment(environment), **_TUNING, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
            failing.pop_all()
        return cls(process, ours)

    async def fork(self) -> Forked:
        """Raise ForkServerDied, or OSError without descriptors. Whom nobody waits for any more ends with its orders."""
        forking = asyncio.create_task(self._fork(), name="fork")
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(_abandon)
            raise

    async def _fork(self) -> Forked:
        ours, theirs = socket.socketpair()
        reports, write_reports = _pipe()
        log, write_log = _pipe()
        with theirs, write_reports, write_log:
            _, orders = await asyncio.open_unix_connection(sock=ours)
            forked = Forked(orders, await _reader(reports), await _reader(log))
            self._ask(forked, [theirs.fileno(), write_reports.fileno(), write_log.fileno()])
        try:
            async with asyncio.timeout(_FORK_SEC):
                await forked.until_born()
        except ForkServerDied:
            orders.close()
            raise
        except TimeoutError:
            orders.close()
            # Nobody else would get any further.
            self._kill()
            raise ForkServerDied("the fork server does not answer") from None
        return forked

    def _ask(self, forked: Forked, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._control, [b"1"], descriptors)
        except OSError:
            self._kill()
            forked.stillborn("the fork server takes no more orders")
        else:
            self._asked.append(forked)

    async def aclose(self) -> None:
        """Ends it; recorders that are left end by themselves with their orders."""
        self._kill()
        await self._process.wait()
        await self._listening

    def _kill(self) -> None:
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with self._control, contextlib.suppress(OSError):
            while message := await self._heard(loop):
                pid, _, code = message.decode().partition(" ")
                if code:
                    self._forked.pop(int(pid)).tell(int(code))
                else:
                    forked = self._forked[int(pid)] = self._asked.popleft()
                    forked.born(int(pid))
        self.alive = False
        for forked in self._forked.values():
            forked.tell(None)
        why = await self._words.last() or "it was killed"
        for forked in self._asked:
            forked.stillborn(f"the fork server ended: {why}")

    async def _heard(self, loop: asyncio.AbstractEventLoop) -> bytes:
        try:
            return await loop.sock_recv(self._control, _MESSAGE_BYTES)
        except ConnectionResetError:
            # It left orders unread. What it said before comes still.
            return await loop.sock_recv(self._control, _MESSAGE_BYTES)


def _abandon(forking: asyncio.Task[Forked]) -> None:
    if forking.exception() is None:
        forking.result().orders.close()


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    read, write = os.pipe()
    return os.fdopen(read, "rb"), os.fdopen(write, "wb")


async def _reader(pipe: BinaryIO) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _UntilTheEnd(reader), pipe)
    return reader


class _UntilTheEnd(asyncio.StreamReaderProtocol):
    def eof_received(self) -> bool:
        """False: uvloop would keep the pipe, which asyncio closes in any case."""
        super().eof_received()
        return False
