"""Starts recorder processes and speaks with them: one for each egress."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping

import structlog

from adapters.recorder.fork import Forked, ForkServer, ForkServerDied
from server.domain.json_form import from_json, to_json
from server.ports.recorder import Broke, Ended, FromRecorder, Ready, RecorderDied, RecorderPlan, ToRecorder

_log = structlog.get_logger("recorder")
_READY_SEC = 30.0
_FAREWELL_SEC = 5.0


class Recorder:
    """One process, the leader of its own group; implements `server.ports.recorder.RecorderProcess`."""

    def __init__(self, process: Forked) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def until_ready(self) -> None:
        """Raise RecorderDied when it does not come up."""
        try:
            async with asyncio.timeout(_READY_SEC):
                report = await self._next()
        except TimeoutError:
            raise RecorderDied("the recorder did not start in time") from None
        if not isinstance(report, Ready):
            raise RecorderDied(f"the recorder said {type(report).__name__} first")

    async def send(self, order: ToRecorder) -> None:
        try:
            self._process.orders.write(json.dumps(to_json(order)).encode() + b"\n")
            await self._process.orders.drain()
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
        self._process.orders.close()

    async def _leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SEC):
                await self._process.wait()
        # What it started, as a browser, does not outlive it.
        await self.kill()

    async def _next(self) -> FromRecorder:
        try:
            line = await self._process.reports.readline()
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
        how, code = "the recorder ended", await self._process.code()
        if code is not None:
            how += f" by signal {-code}" if code < 0 else f" with code {code}"
        last = await self._process.last_words()
        return f"{how}: {last}" if last else how


class RecorderPool:
    """Implements `server.ports.recorder.Recorders`.

    The fork server is started by `warm_up` or with the first recorder, and again when it has died.
    """

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._server: asyncio.Task[ForkServer] | None = None
        self._closed = False

    def warm_up(self) -> None:
        """Have everything imported for the first plan."""
        if self._server is None:
            self._server = asyncio.create_task(ForkServer.start(self._environment), name="fork server")

    async def start(self, plan: RecorderPlan) -> Recorder:
        """Raise RecorderDied when none can be started."""
        try:
            recorder = Recorder(await self._fork())
        except OSError as error:
            raise RecorderDied(f"no recorder can be started: {error.strerror}") from error
        try:
            await recorder.until_ready()
            await recorder.send(plan)
        except BaseException:
            await recorder.kill()
            raise
        return recorder

    async def aclose(self) -> None:
        self._closed = True
        server, self._server = self._server, None
        if server is not None:
            # One that never came up needs no end.
            with contextlib.suppress(OSError):
                await (await server).aclose()

    async def _fork(self) -> Forked:
        with contextlib.suppress(ForkServerDied):
            return await (await self._fork_server()).fork()
        return await (await self._fork_server()).fork()

    async def _fork_server(self) -> ForkServer:
        if self._closed:
            raise RecorderDied("no recorder is needed any more")
        server = self._server
        if server is not None and server.done() and (server.exception() or not server.result().alive):
            _log.warning("the fork server has died")
            self._server = None
        self.warm_up()
        assert self._server is not None
        # Shielded: others wait for it as well.
        return await asyncio.shield(self._server)
