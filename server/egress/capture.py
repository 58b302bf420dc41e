"""The capture of an egress: takes, one after the other, until there is a reason to end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.clock import Clock
from server.domain.egress import Egress, EgressPlan, EgressStatus, Failing, Orders, StreamStatus
from server.domain.egress_sources import RoomSource
from server.egress import outcome
from server.egress.board import OrdersBoard
from server.egress.books import Books, active, failed_ids
from server.egress.door import RoomDoor
from server.egress.events import EgressWatcher
from server.egress.journal import Journal, Part, PartBegun, Reported
from server.egress.outcome import Outcome
from server.egress.segments import adopt_segments, until_written
from server.egress.storage import EgressStorages
from server.egress.take import Lost, Take, TakeEnd, TakeLimits, resumable
from server.egress.uploads import Uploads
from server.errors import ServiceError
from server.ports.jobs import JobRun, JobStopped
from server.ports.recorder import (
    ORPHANED_SEC,
    Active,
    Broke,
    Ended,
    RecorderDied,
    RecorderPlan,
    Recorders,
    WantedImages,
)
from server.ports.unit_of_work import Database

_log = logging.getLogger(__name__)

RECORDER_LOST = "RECORDER_LOST"
WORKER_LOST = "WORKER_LOST"
CONNECTION_LOST = "CONNECTION_LOST"
# Layouts in which nobody of a small room is left out; `-light` and `-dark` follow.
_SHOW_EVERYBODY = ("grid", "speaker", "default")
# Its room was seen when it was accepted; asking again costs time that a start does not have.
_FRESH_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a recorder is started again. Seconds.

    It fails after `fruitless` takes in a row without any media, or `frequent` lost recorders within `window_sec`.
    `livekit_patience_sec`: how long a LiveKit that does not answer is waited for; `orphan_sec` the same for a recorder
    that still writes segments though its worker is gone.
    """

    fruitless: int = 6
    frequent: int = 12
    window_sec: float = 120.0
    first_pause_sec: float = 0.25
    max_pause_sec: float = 4.0
    ask_sec: float = 1.0
    livekit_patience_sec: float = 120.0
    # A busy machine may be late to end it.
    orphan_sec: float = ORPHANED_SEC + 2.0


@dataclass(frozen=True, slots=True)
class Studio:
    """Everything that captures work with. `folder` holds one folder per egress; `max_sec` 0 means no limit."""

    database: Database
    recorders: Recorders
    door: RoomDoor
    board: OrdersBoard
    storages: EgressStorages
    watchers: Sequence[EgressWatcher]
    clock: Clock
    folder: Path
    limits: TakeLimits = field(default_factory=TakeLimits)
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    max_sec: float = 0.0
    allow_private_urls: bool = False


class Capture:
    """One claim's share of the capture of an egress; what earlier claims have left is continued."""

    def __init__(
        self, studio: Studio, run: JobRun, books: Books, egress: Egress, orders: Orders, journal: Journal
    ) -> None:
        self._studio = studio
        self._run = run
        self._books = books
        self._egress = egress
        self._orders = orders
        self._journal = journal
        self._uploads = Uploads(studio.storages, run, egress, journal, books=books)

    async def capture(self) -> Outcome:
        """How it ended. Raise JobStopped, OwnershipLost."""
        uploading = asyncio.create_task(self._uploads.keep_up(), name=f"uploads {self._egress.id}")
        try:
            return await self._capture()
        finally:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)

    async def _capture(self) -> Outcome:
        reason = ""
        if parts := self._journal.footage.parts:
            reason = WORKER_LOST
            await self._adopt(parts[-1])
            before = parts[-1].end
            # ENDING without an order: its end was decided, and whoever did so died on the way to the delivery.
            decided_before = self._egress.status is EgressStatus.ENDING
            if before is not None and (decided_before or not self._is_handover(before)):
                disk_low = outcome.is_told(self._egress, outcome.DISK_LOW)
                if decided := await self._judge(before, disk_low=disk_low):
                    return decided
                reason = CONNECTION_LOST
        while True:
            if decided := await self._before_take(reason):
                return decided
            end, disk_low = await self._take(reason)
            if self._run.stop.is_set() and self._is_handover(end):
                raise JobStopped
            if decided := await self._judge(end, disk_low=disk_low):
                return decided
            reason = CONNECTION_LOST if isinstance(end, Ended) else RECORDER_LOST

    def _is_handover(self, end: TakeEnd) -> bool:
        """Asked for by the worker, not by anybody's order."""
        asked = isinstance(end, Lost) or (isinstance(end, Ended) and end.reason == "stopped")
        return asked and not self._orders.end_reason

    # --- one take

    async def _take(self, reason: str) -> tuple[TakeEnd, bool]:
        footage = self._journal.footage
        part = footage.next_part
        await self._journal.add(PartBegun(part, reason, self._books.now()))
        take = Take(
            run=self._run,
            books=self._books,
            journal=self._journal,
            board=self._studio.board,
            database=self._studio.database,
            limits=self._studio.limits,
            egress=self._egress,
            orders=self._orders,
            part=part,
            on_output=self._uploads.stir,
        )
        try:
            process = await self._studio.recorders.start(await self._plan(part))
            end = await take.record(process)
        except RecorderDied as error:
            end = Lost(str(error))
        except ServiceError as error:
            end = Lost(error.message)
        self._orders = take.orders
        if isinstance(end, Lost):
            _log.warning("egress %s: recorder of part %d was lost: %s", self._egress.id, part, end.message)
        if not isinstance(end, Ended):
            await self._adopt(self._journal.footage.parts[-1])
        return end, take.disk_low

    async def _adopt(self, part: Part) -> None:
        """What a recorder wrote but could not tell of any more."""
        segments = bool(self._egress.plan.outputs.segments)
        patience = self._studio.restarts.orphan_sec
        is_written = not segments or await until_written(self._journal.folder, part.number, patience)
        if not part.started_at and (started_at := await asyncio.to_thread(self._sidecar, part.number)):
            await self._journal.add(Reported(part.number, Active(started_at)))
            await self._books.change(lambda egress: active(egress, started_at))
        if segments and is_written:
            await self._adopt_segments(part.number)
        elif segments:
            _log.error(
                "egress %s: part %d is still written, its end is not used", self._egress.id, part.number
            )

    async def _adopt_segments(self, part: int) -> None:
        try:
            await adopt_segments(self._journal, part)
        except OSError as error:
            # A full disk must not keep the rest from being delivered.
            _log.error("egress %s: what part %d left is not used: %s", self._egress.id, part, error)
        self._uploads.stir()

    def _sidecar(self, part: int) -> int:
        try:
            return int(json.loads((self._journal.folder / f"part-{part:03d}.json").read_bytes())["startedAt"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    async def _plan(self, part: int) -> RecorderPlan:
        plan, outputs = self._egress.plan, self._egress.plan.outputs
        admission, newest, has_few_tracks = await asyncio.gather(
            self._studio.door.admit(self._egress),
            self._newest(),
            self._studio.door.has_few_tracks(plan.livekit_room),
        )
        orders = resumable(self._orders, frozenset(failed_ids(newest)))
        source_layout = plan.source.layout if isinstance(plan.source, RoomSource) else ""
        layout = orders.layout or source_layout or "grid"
        return RecorderPlan(
            egress_id=self._egress.id,
            url=admission.url,
            token=admission.token,
            source=plan.source,
            encoding=plan.encoding,
            folder=str(self._journal.folder),
            part=part,
            container=outputs.files[0].container if outputs.files else "",
            segment_sec=outputs.segments[0].segment_sec if outputs.segments else 0,
            images=tuple(WantedImages(one.interval_sec, one.width, one.height) for one in outputs.images),
            streams=outputs.streams,
            destinations=orders.destinations,
            layout=layout,
            paused=orders.paused,
            max_sec=self._time_left(),
            at_once=has_few_tracks and _needs_everybody(plan, layout),
            first_image=self._journal.footage.next_image,
            allow_private_urls=self._studio.allow_private_urls,
        )

    def _time_left(self) -> float:
        if not self._studio.max_sec:
            return 0.0
        return max(self._studio.max_sec - self._journal.footage.duration_ms / 1000, 0.1)

    async def _newest(self) -> Egress:
        async with self._studio.database.read() as tx:
            return await tx.egresses.get(None, self._egress.id) or self._egress

    # --- what comes next

    async def _before_take(self, reason: str) -> Outcome | None:
        """Whether another take makes sense at all; waits where it must."""
        footage, began = self._journal.footage, time.monotonic()
        async with self._studio.database.read() as tx:
            self._orders = await tx.egresses.orders(self._egress.id)
        if self._orders.end_reason:
            return self._ended(self._orders.end_reason)
        if self._is_hopeless(footage.parts):
            return outcome.failed(outcome.RECORDER_FAILS, self._last_media())
        if not self._egress.plan.livekit_room or not (footage.parts or self._has_waited()):
            return None
        await self._pause(self._pause_before(footage.parts, reason))
        while (over := await self._room_is_over(reason)) is None:
            if time.monotonic() - began > self._studio.restarts.livekit_patience_sec:
                return outcome.failed(outcome.CONNECTION_LOST, self._last_media())
            await self._pause(self._studio.restarts.ask_sec)
        return self._ended(outcome.SOURCE_CLOSED) if over else None

    def _has_waited(self) -> bool:
        """So long for a worker that its room may be gone; who joins one that is gone opens it again."""
        return self._run.job.attempt > 1 or self._books.now() - self._egress.started_at > _FRESH_NS

    def _is_hopeless(self, parts: Sequence[Part]) -> bool:
        policy = self._studio.restarts
        last = parts[-policy.fruitless :]
        if len(last) == policy.fruitless and not any(part.started_at for part in last):
            return True
        since = self._books.now() - int(policy.window_sec * 1e9)
        recent = [part for part in parts if part.reason == RECORDER_LOST and part.began_at > since]
        return len(recent) >= policy.frequent

    def _pause_before(self, parts: Sequence[Part], reason: str) -> float:
        policy = self._studio.restarts
        fruitless = 0
        for part in reversed(parts):
            if part.started_at:
                break
            fruitless += 1
        if not fruitless and reason != CONNECTION_LOST:
            return 0.0
        return min(policy.first_pause_sec * 2.0**fruitless, policy.max_pause_sec)

    async def _pause(self, seconds: float) -> None:
        """Raise JobStopped when the worker must go."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._run.stop.wait()
        except TimeoutError:
            return
        raise JobStopped

    async def _room_is_over(self, reason: str) -> bool | None:
        """None while LiveKit does not say. One that was restarted has the room, and its people, under a new sid."""
        try:
            sid = await self._studio.door.sid(self._egress.plan.livekit_room)
        except ServiceError as error:
            _log.warning(
                "egress %s: LiveKit does not say if its room is open: %s", self._egress.id, error.message
            )
            return None
        reasons = {reason, *(part.reason for part in self._journal.footage.parts)}
        if CONNECTION_LOST in reasons:
            return not sid
        return not sid or bool(self._egress.room_id and sid != self._egress.room_id)

    async def _judge(self, end: TakeEnd, *, disk_low: bool) -> Outcome | None:
        """None: there must be another take."""
        if self._orders.end_reason:
            return self._ended(self._orders.end_reason)
        if disk_low:
            return outcome.limited(outcome.DISK_LOW, outcome.DISK_FULL, self._last_media())
        match end:
            case Ended(reason="evicted"):
                # Another recorder of this egress: its owner has the job, or it will be gone by the next take.
                await self._run.save()
                return None
            case Ended(reason="connection_lost") | Lost() | Broke(retry=True):
                return None
            case Broke():
                failing = Failing(end.code or "EGRESS_FAILED", end.message, end.http_code)
                return outcome.failed(failing, self._last_media())
            case Ended(reason="limit") if self._journal.footage.has_media:
                return outcome.limited(outcome.LIMIT, outcome.LIMIT_REACHED, end.ended_at)
            case Ended(reason="streams_failed"):
                return await self._streams_failed(end)
            case Ended(reason="streams_ended"):
                return self._ended(outcome.STREAMS_ENDED, end.ended_at)
            case Ended(reason="source_closed"):
                return self._ended(outcome.SOURCE_CLOSED, end.ended_at)
            case _:
                return self._ended(outcome.STOPPED, end.ended_at)

    def _ended(self, reason: str, ended_at: int = 0) -> Outcome:
        if self._journal.footage.has_media:
            return outcome.completed(reason, ended_at or self._last_media())
        if not self._egress.active_at:
            return outcome.aborted(reason, self._books.now())
        # Its media came before this claim, and is on the disk of the host that had it then.
        outputs = self._egress.plan.outputs
        if outputs.files or outputs.segments or outputs.images:
            return outcome.failed(outcome.FILES_GONE, self._books.now())
        return outcome.completed(reason, self._books.now())

    async def _streams_failed(self, end: Ended) -> Outcome:
        """With a file beside them, which then ends too, it still completes (B-45)."""
        outputs = self._egress.plan.outputs
        if outputs.files or outputs.segments or outputs.images:
            return self._ended(outcome.STREAMS_ENDED, end.ended_at)
        streams = (await self._newest()).results.streams
        last = next((one for one in reversed(streams) if one.status is StreamStatus.FAILED), None)
        if last is None:
            return outcome.failed(Failing("EGRESS_FAILED", "The stream failed", 503), end.ended_at)
        return outcome.failed(Failing(last.error_code or "EGRESS_FAILED", last.error, 503), end.ended_at)

    def _last_media(self) -> int:
        """When the last take's media ended, as far as it is known."""
        for part in reversed(self._journal.footage.parts):
            if isinstance(part.end, Ended):
                return part.end.ended_at
            if part.started_at:
                return part.started_at + part.duration_ms * 1_000_000
        return self._books.now()


def _needs_everybody(plan: EgressPlan, layout: str) -> bool:
    """Whether nearly all that is in a small room will be shown and heard."""
    match plan.source:
        case RoomSource(audio_only=False, video_only=False, base_url=""):
            return layout.startswith(_SHOW_EVERYBODY)
    return False
