"""The worker's side of the fork server (`python -m adapters.recorder`): asks it for recorder processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Mapping

import structlog

from adapters.recorder.children import child_environment, module_command
from adapters.recorder.scrub import scrubbed
from server.ports.recorder import RecorderDied

_log = structlog.get_logger("recorder")
_MAX_LINE_BYTES = 1 << 20
_LINE_CHARS = 2000
_KEPT_LINES = 5
_MESSAGE_BYTES = 64
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


class Forked:
    """A recorder process, the leader of its own group. `orders` and `reports` are its standard input and output."""

    def __init__(
        self, orders: asyncio.StreamWriter, reports: asyncio.StreamReader, log: asyncio.StreamReader
    ) -> None:
        self.pid = 0
        self.orders, self.reports = orders, reports
        self.code: int | None = None
        self._words = LastWords(log)
        self._born: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    async def until_born(self) -> None:
        """Raise ForkServerDied."""
        await asyncio.shield(self._born)

    async def wait(self) -> None:
        await self._ended.wait()

    async def last_words(self) -> str:
        """The last line of its log once it is gone; "" without one."""
        return await self._words.last()

    def born(self, pid: int) -> None:
        self.pid = self._words.pid = pid
        self._born.set_result(None)

    def stillborn(self, why: str) -> None:
        self._born.set_exception(ForkServerDied(why))
        self._ended.set()

    def ended(self, code: int | None) -> None:
        """`code`: negative for a signal; None when nobody can tell any more."""
        self.code = code
        self._ended.set()

    def orphaned(self) -> None:
        """Its parent is gone: the kernel tells when it has ended, but not how."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.ended(None)
            return
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self.ended(None)

        loop.add_reader(descriptor, gone)


class ForkServer:
    """Started by `ForkServer.start`; recorders outlive it."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        assert process.stderr is not None
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
        with theirs:
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
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._listening.done()

    async def fork(self) -> Forked:
        """Raise ForkServerDied. Whom nobody waits for any more ends itself: its orders have ended."""
        ours, theirs = socket.socketpair()
        read_log, write_log = os.pipe()
        try:
            reports, orders = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE_BYTES)
            forked = Forked(orders, reports, await _reader(read_log))
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno(), write_log])
            except OSError:
                forked.stillborn("the fork server takes no more orders")
            else:
                self._asked.append(forked)
        finally:
            theirs.close()
            os.close(write_log)
        try:
            await forked.until_born()
        except BaseException:
            orders.close()
            raise
        return forked

    async def aclose(self) -> None:
        """Ends it; recorders that are left end by themselves with their orders."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with self._control:
            while message := await self._heard(loop):
                pid, _, code = message.decode().partition(" ")
                if code:
                    self._forked.pop(int(pid)).ended(int(code))
                else:
                    forked = self._forked[int(pid)] = self._asked.popleft()
                    forked.born(int(pid))
        why = await self._words.last() or "it was killed"
        for forked in self._asked:
            forked.stillborn(f"the fork server ended: {why}")
        for forked in self._forked.values():
            forked.orphaned()

    async def _heard(self, loop: asyncio.AbstractEventLoop) -> bytes:
        try:
            return await loop.sock_recv(self._control, _MESSAGE_BYTES)
        except ConnectionError:
            return b""


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


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_MAX_LINE_BYTES)
    pipe = os.fdopen(descriptor, "rb")
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader
