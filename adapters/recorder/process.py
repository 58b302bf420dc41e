"""Starts recorder processes and speaks with them: one for each egress, one more kept warm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import structlog

from adapters.recorder.children import child_environment, module_command
from adapters.recorder.scrub import scrubbed
from adapters.recorder.wire import HURRY
from server.domain.json_form import from_json, to_json
from server.ports.recorder import Broke, Ended, FromRecorder, Ready, RecorderDied, RecorderPlan, ToRecorder

_log = structlog.get_logger("recorder")
_MAX_LINE_BYTES = 1 << 20
_LINE_CHARS = 2000
_KEPT_LINES = 5
_READY_SEC = 30.0
# Who is not wanted yet takes its time.
_LEISURE_SEC = 300.0
_FAREWELL_SEC = 5.0
# A recorder that joins its room has the processor to itself for so long, before the next one is made ready.
_BREATH_SEC = 0.5
# Dozens of threads allocate pictures: few arenas, as each keeps what was freed in it, and no fresh pages for each one.
# The SDK's tasks only hand media to Python, one at a time: a second thread for them is woken for nothing.
_TUNING = {
    "TOKIO_WORKER_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}


class Recorder:
    """One process, the leader of its own group; implements `server.ports.recorder.RecorderProcess`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._last_words: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listening = asyncio.create_task(self._listen(), name="recorder's log")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def until_ready(self, wanted: asyncio.Event) -> None:
        """It gives way to others until it is `wanted`. Raise RecorderDied when it does not come up then."""
        try:
            async with asyncio.timeout(_LEISURE_SEC) as limit:
                hurrying = asyncio.create_task(self._hurry(wanted, limit), name="hurry")
                try:
                    report = await self._next()
                finally:
                    hurrying.cancel()
        except TimeoutError:
            await self.kill()
            raise RecorderDied("the recorder did not start in time") from None
        if not isinstance(report, Ready):
            raise RecorderDied(f"the recorder said {type(report).__name__} first")

    async def _hurry(self, wanted: asyncio.Event, limit: asyncio.Timeout) -> None:
        assert self._process.stdin is not None
        await wanted.wait()
        limit.reschedule(asyncio.get_running_loop().time() + _READY_SEC)
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(HURRY)

    async def send(self, order: ToRecorder) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(to_json(order)).encode() + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise RecorderDied("the recorder takes no more orders") from None

    async def reports(self) -> AsyncIterator[FromRecorder]:
        while True:
            report = await self._next()
            if isinstance(report, Ended | Broke):
                # What is left of it is of no use.
                yield report
                await self._leave()
                return
            yield report

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._listening
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def dismiss(self) -> None:
        """Ends one that has nothing to do; it reads the end of its orders."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._leave()

    async def _leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SEC):
                await self._process.wait()
        # What it started, as a browser, does not outlive it.
        await self.kill()

    async def _next(self) -> FromRecorder:
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:
            line = b""
        if not line.endswith(b"\n"):
            raise RecorderDied(await self._how_it_died())
        try:
            report: FromRecorder = from_json(FromRecorder, json.loads(line))
        except (KeyError, TypeError, ValueError):
            raise RecorderDied("the recorder's report can't be read") from None
        return report

    async def _how_it_died(self) -> str:
        await self.kill()
        code = self._process.returncode or 0
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return (
            f"the recorder ended {how}: {self._last_words[-1]}"
            if self._last_words
            else f"the recorder ended {how}"
        )

    async def _listen(self) -> None:
        """Its standard error goes to our log, without what opens doors."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            text = scrubbed(line.decode(errors="replace").rstrip())[:_LINE_CHARS]
            if text:
                self._last_words.append(text)
                _log.warning(text, pid=self._process.pid)


def _be_nice(pid: int, nice: int) -> None:
    """Its session is a scheduling group of its own where the kernel makes such; then the group's niceness counts."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class RecorderPool:
    """Implements `server.ports.recorder.Recorders`.

    `nice` is the processes' niceness, 0 by default: they keep time with people, unlike conversions. The warm process
    is started with the first call of `start` or by `warm_up`, and again each time when it was taken.
    """

    def __init__(self, *, nice: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._nice = nice
        self._environment = dict(os.environ if environment is None else environment)
        self._spare: asyncio.Task[Recorder] | None = None
        self._wanted = asyncio.Event()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def warm_up(self, *, after_sec: float = 0.0) -> None:
        """Have one ready for the first plan."""
        if self._spare is None and not self._closed:
            self._wanted = asyncio.Event()
            making = self._make_soon(after_sec, self._wanted)
            self._spare = asyncio.create_task(making, name="spare recorder")

    async def start(self, plan: RecorderPlan) -> Recorder:
        """Raise RecorderDied when none can be started."""
        recorder = await self._take()
        try:
            await recorder.send(plan)
        except BaseException:
            await recorder.kill()
            raise
        self.warm_up(after_sec=_BREATH_SEC)
        return recorder

    async def aclose(self) -> None:
        self._closed = True
        self._wanted.set()
        spare, self._spare = self._spare, None
        if spare is not None:
            await self._dismiss(spare)
        await asyncio.gather(*self._leaving)

    async def _take(self) -> Recorder:
        spare, self._spare = self._spare, None
        self._wanted.set()
        if spare is not None:
            try:
                # Shielded: whoever starts may be cancelled, and nobody would end what was half made.
                recorder = await asyncio.shield(spare)
            except asyncio.CancelledError:
                leaving = asyncio.create_task(self._dismiss(spare), name="a spare too many")
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                raise
            except RecorderDied as death:
                _log.warning(str(death))
            else:
                if recorder.alive:
                    return recorder
        at_once = asyncio.Event()
        at_once.set()
        return await self._make(at_once)

    async def _dismiss(self, spare: asyncio.Task[Recorder]) -> None:
        with contextlib.suppress(RecorderDied):
            await (await spare).dismiss()

    async def _make_soon(self, after_sec: float, wanted: asyncio.Event) -> Recorder:
        """At once when it is wanted meanwhile. Raise RecorderDied when none is needed any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_sec):
                await wanted.wait()
        if self._closed:
            raise RecorderDied("no recorder is needed any more")
        return await self._make(wanted)

    async def _make(self, wanted: asyncio.Event) -> Recorder:
        """In its leisure, so that those at work are not disturbed, until it is wanted."""
        process = await asyncio.create_subprocess_exec(
            *module_command("adapters.recorder"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            env={**child_environment(self._environment), **_TUNING, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        if self._nice:
            _be_nice(process.pid, self._nice)
        recorder = Recorder(process)
        try:
            await recorder.until_ready(wanted)
        except BaseException:
            await recorder.kill()
            raise
        return recorder
