"""One take: one recorder process of an egress, from its plan to its last report."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from server.domain.egress import Egress, Orders
from server.egress.board import OrdersBoard
from server.egress.books import Books, active, ending, in_room, with_report, with_streams
from server.egress.journal import Journal, Reported
from server.egress.outcome import DISK_FILLS
from server.errors import ServiceError
from server.ports.jobs import JobRun
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Finish,
    FromRecorder,
    ImageWritten,
    Joined,
    Measured,
    NewOrders,
    RecorderDied,
    RecorderProcess,
    SegmentWritten,
    StreamReport,
    TrackSeen,
)
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)

_JOURNAL_MEASURED_SEC = 5.0


@dataclass(frozen=True, slots=True)
class TakeLimits:
    """Seconds. `finish_sec`: how long a recorder may take to end when asked; `handover_sec` the same while the worker
    drains; `silence_sec`: one that is recording and says nothing for so long hangs. Below `min_free_bytes` of free disk
    it is ended, below twice as much it is warned of.
    """

    poll_sec: float = 1.0
    finish_sec: float = 30.0
    handover_sec: float = 7.0
    silence_sec: float = 20.0
    look_sec: float = 0.5
    min_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """The recorder ended without a word, or had to be killed."""

    message: str


@dataclass(frozen=True, slots=True)
class _DiskFills:
    """Seen here and told in its turn: the disk is watched also while the database is away."""


TakeEnd = Ended | Broke | Lost

# Processes on their way out; nobody needs to wait for them, and they die with this one.
_leaving: set[asyncio.Task[None]] = set()


class Take:
    """Reads what the recorder reports, journals it at once, and writes it to the rows as fast as the database allows.

    A recorder never waits for the database: its reports are taken in whatever happens elsewhere.
    """

    def __init__(
        self,
        *,
        run: JobRun,
        books: Books,
        journal: Journal,
        board: OrdersBoard,
        database: Database,
        limits: TakeLimits,
        egress: Egress,
        orders: Orders,
        part: int,
        on_output: Callable[[], None],
    ) -> None:
        self._run = run
        self._books = books
        self._journal = journal
        self._board = board
        self._database = database
        self._limits = limits
        self._egress_id = egress.id
        self._part = part
        self._on_output = on_output
        self._pending: deque[FromRecorder | _DiskFills] = deque()
        self._news = asyncio.Event()
        self._read_all = False
        self._heard_at = 0.0
        self._finish_by: float | None = None
        self._measured: Measured | None = None
        self._measured_at = 0.0
        self._frames = (0, 0.0)
        self._earlier_ms = journal.footage.duration_ms
        self.orders = orders
        self._warned = False
        self.disk_low = False

    async def record(self, process: RecorderProcess) -> TakeEnd:
        """Raise OwnershipLost; the process is gone or going when it returns."""
        self._reports = process.reports()
        reading = asyncio.create_task(self._read(process), name=f"reports {self._egress_id}")
        keeping = asyncio.create_task(self._keep_books(), name=f"books {self._egress_id}")
        others = {
            asyncio.create_task(self._follow_orders(process), name=f"orders {self._egress_id}"),
            asyncio.create_task(self._guard(process), name=f"guard {self._egress_id}"),
        }
        tasks = {reading, keeping, *others}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            for task in others:
                task.cancel()
            await keeping
            return reading.result()
        finally:
            for task in tasks:
                task.cancel()
            end, *_ = await asyncio.gather(reading, *tasks, return_exceptions=True)
            if isinstance(end, Ended):
                _let_go(process, self._reports)
            else:
                # Whatever broke, its threads may still write to files that are about to be read.
                await process.kill()

    # --- what the recorder says

    async def _read(self, process: RecorderProcess) -> TakeEnd:
        end: TakeEnd = Lost("it ended without a word")
        try:
            async for report in self._reports:
                self._heard_at = time.monotonic()
                await self._note(process, report)
                self._queue(report)
                if isinstance(report, Ended | Broke):
                    end = report
                    break
        except RecorderDied as error:
            end = Lost(str(error))
            await self._note_last_figures()
        self._read_all = True
        self._news.set()
        return end

    async def _note(self, process: RecorderProcess, report: FromRecorder) -> None:
        try:
            match report:
                case Joined() | Active():
                    await self._journal.add(Reported(self._part, report))
                case Ended() | Broke():
                    await self._note_last_figures()
                    await self._journal.add(Reported(self._part, report))
                case SegmentWritten() | ImageWritten():
                    await self._journal.add(Reported(self._part, report))
                    self._on_output()
                case TrackSeen():
                    await self._journal.add(Reported(self._part, report), durable=False)
                case Measured():
                    paused = self._measured is not None and report.gaps != self._measured.gaps
                    self._measured = report
                    if paused or time.monotonic() - self._measured_at >= _JOURNAL_MEASURED_SEC:
                        self._measured_at = time.monotonic()
                        await self._journal.add(Reported(self._part, report), durable=False)
                case _:
                    pass
        except OSError as error:
            _log.error("egress %s: its journal cannot be written: %s", self._egress_id, error)
            self.disk_low = True
            await self._finish(process)

    async def _note_last_figures(self) -> None:
        if self._measured is not None:
            with suppress(OSError):
                await self._journal.add(Reported(self._part, self._measured), durable=False)

    def _queue(self, report: FromRecorder | _DiskFills) -> None:
        if isinstance(report, Measured) and self._pending and isinstance(self._pending[-1], Measured):
            self._pending.pop()
        self._pending.append(report)
        self._news.set()

    async def _keep_books(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                await self._enter(self._pending.popleft())
            if self._read_all:
                return

    async def _enter(self, report: FromRecorder | _DiskFills) -> None:
        match report:
            case Joined(room_id):
                await self._books.change(lambda egress: in_room(egress, room_id))
            case Active(started_at):
                await self._books.change(lambda egress: active(egress, started_at))
            case StreamReport() if not self._is_handing_over():
                await self._books.change(lambda egress: with_report(egress, report))
            case Measured():
                await self._books.measured(self._figures(report))
            case _DiskFills():
                await self._books.caution(DISK_FILLS)
            case _:
                pass

    def _figures(self, measured: Measured) -> dict[str, float]:
        frames, at = measured.composed, time.monotonic()
        before, since = self._frames
        self._frames = (frames, at)
        fps = (frames - before) / (at - since) if since and at > since else 0.0
        return {
            "durationMs": self._earlier_ms + measured.duration_ms,
            "fps": round(fps, 1),
            "framesComposed": measured.composed,
            "framesRepeated": measured.repeated,
            "framesDropped": measured.dropped,
            "bytes": measured.bytes,
        }

    # --- what it is told

    async def _follow_orders(self, process: RecorderProcess) -> None:
        with self._board.watch(self._egress_id) as stirred, suppress(RecorderDied):
            while True:
                stirred.clear()
                orders = await self._newest_orders()
                if orders.version != self.orders.version or (orders.end_reason and not self._finish_by):
                    await self._obey(process, orders)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.poll_sec):
                        await stirred.wait()
        # Whoever reads the reports learns of the death too, and ends this.
        await asyncio.Event().wait()

    async def _newest_orders(self) -> Orders:
        try:
            async with self._database.read() as tx:
                return await tx.egresses.orders(self._egress_id)
        except ServiceError as error:
            _log.warning("egress %s: its orders cannot be read: %s", self._egress_id, error.message)
            return self.orders

    async def _obey(self, process: RecorderProcess, orders: Orders) -> None:
        self.orders = orders
        if orders.end_reason:
            await self._finish(process)
            await self._books.change(lambda egress: ending(egress, orders.end_reason))
            return
        await process.send(NewOrders(orders.layout, orders.paused, orders.destinations))
        await self._books.change(lambda egress: with_streams(egress, orders.destinations))

    async def _finish(self, process: RecorderProcess) -> None:
        if self._finish_by is None:
            patience = self._limits.handover_sec if self._run.stop.is_set() else self._limits.finish_sec
            self._finish_by = time.monotonic() + patience
            with suppress(RecorderDied):
                await process.send(Finish())

    # --- what must not go on

    async def _guard(self, process: RecorderProcess) -> None:
        looked_at = 0.0
        while True:
            now = time.monotonic()
            if self._run.stop.is_set():
                await self._finish(process)
            if (self._finish_by and now > self._finish_by) or self._is_hanging(now):
                _log.error("egress %s: its recorder hangs and is killed", self._egress_id)
                await process.kill()
            if now - looked_at > 10 * self._limits.look_sec:
                looked_at = now
                await self._look_at_disk(process)
            if self._run.stop.is_set():
                await asyncio.sleep(self._limits.look_sec)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.look_sec):
                    await self._run.stop.wait()

    def _is_hanging(self, now: float) -> bool:
        # Before its first media it may rightly wait, for a page or for a track.
        begun = self._journal.footage.part(self._part).started_at > 0
        return begun and now - self._heard_at > self._limits.silence_sec

    def _is_handing_over(self) -> bool:
        return self._run.stop.is_set() and not self.orders.end_reason

    async def _look_at_disk(self, process: RecorderProcess) -> None:
        free = (await asyncio.to_thread(shutil.disk_usage, self._journal.folder)).free
        if free < self._limits.min_free_bytes and not self.disk_low:
            _log.error("egress %s: the disk is nearly full, it is ended", self._egress_id)
            self.disk_low = True
            await self._finish(process)
        elif free < 2 * self._limits.min_free_bytes and not (self._warned or self.disk_low):
            self._warned = True
            _log.warning("egress %s: only %d MiB of disk are left", self._egress_id, free >> 20)
            self._queue(_DiskFills())


def _let_go(process: RecorderProcess, reports: AsyncIterator[FromRecorder]) -> None:
    async def leave() -> None:
        with suppress(RecorderDied):
            async for _ in reports:
                pass
        await process.kill()

    task = asyncio.create_task(leave(), name="a recorder leaves")
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


def resumable(orders: Orders, failed: frozenset[str]) -> Orders:
    """What a new take is told: without the destinations that have failed for good."""
    return replace(orders, destinations=tuple(one for one in orders.destinations if one.id not in failed))
