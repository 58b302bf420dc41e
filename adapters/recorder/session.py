"""One recording of a composed source: joins, waits for what is to be recorded, records, ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from adapters.recorder.attendance import Attendance
from adapters.recorder.director import Director
from adapters.recorder.room import CannotJoin, RecordedRoom, StatisticsFailed
from adapters.recorder.sidecar import note_start
from adapters.recorder.streaming import Watched, stream_resolver
from adapters.recorder.timeline import Clock, Timeline
from server.domain.egress import Destination
from server.domain.egress_sources import MediaSource, ParticipantSource, RoomSource, TrackCompositeSource
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Finish,
    FromRecorder,
    Joined,
    Measured,
    NewOrders,
    RecorderPlan,
    ToRecorder,
)

if TYPE_CHECKING:
    from adapters.recorder.program import Program

Report = Callable[[FromRecorder], None]
_JOIN_TRIES = 3
_JOIN_PAUSE_SEC = 0.5
_MEASURE_SEC = 1.0
_LISTEN_SEC = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for what is named to come, for a lost connection to be seen as that, and to be found again."""

    source_sec: float = 30.0
    freeze_sec: float = 3.0
    reconnect_sec: float = 30.0


async def record_room(
    plan: RecorderPlan,
    orders: asyncio.Queue[ToRecorder],
    report: Report,
    patience: Patience | None = None,
) -> None:
    """Until an order to finish or the end of the source; reports `Ended` or `Broke` last."""
    await _Session(plan, orders, report, patience or Patience()).run()


class _Over(Exception):
    """Nothing more is to be recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Impossible(Exception):
    """It can't be recorded: `report` tells why."""

    def __init__(self, report: Broke) -> None:
        super().__init__(report.message)
        self.report = report


class _Session:
    def __init__(
        self, plan: RecorderPlan, orders: asyncio.Queue[ToRecorder], report: Report, patience: Patience
    ) -> None:
        self._plan = plan
        self._patience = patience
        self._orders = orders
        self._report = report
        source = plan.source
        assert isinstance(source, RoomSource | ParticipantSource | TrackCompositeSource | MediaSource)
        self._source = source
        self._clock = Clock()
        self._room = RecordedRoom(
            plan.url,
            plan.token,
            self._on_change,
            self._clock.position,
            patience.reconnect_sec,
            at_once=plan.at_once,
        )
        self._director = Director(plan, self._room, patience.freeze_sec)
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._finish = False
        self._failure: Exception | None = None
        self._program: Program | None = None
        self._told_muted = False
        self._timeline: Timeline | None = None
        self._watched = Watched(plan)
        self._told = plan.destinations
        self._attendance = Attendance(report)

    async def run(self) -> None:
        following = asyncio.create_task(self._follow(), name="orders")
        listening = asyncio.create_task(self._listen(), name="speakers")
        for task in (following, listening):
            task.add_done_callback(self._on_task_over)
        try:
            await self._find()
            reason = await self._record()
        except _Over as over:
            reason = over.reason
        except _Impossible as impossible:
            await self._room.close()
            await self._close_program()
            self._report(impossible.report)
            return
        finally:
            following.cancel()
            listening.cancel()
        await self._end(reason)

    # --- before the first frame

    async def _find(self) -> None:
        """Joins and waits until there is something to record."""
        room_id = await self._join()
        if not await self._until(
            lambda: bool(self._director.show.wrong) or not self._director.show.missing,
            self._patience.source_sec,
        ):
            raise _Impossible(Broke("EGRESS_FAILED", self._director.show.missing, 404))
        if self._director.show.wrong:
            raise _Impossible(Broke("EGRESS_FAILED", self._director.show.wrong, 400))
        self._report(Joined(room_id, publisher_identity=self._publisher()))
        await self._until(lambda: not self._director.show.idle)

    async def _join(self) -> str:
        joining = asyncio.create_task(self._try_to_join())
        stopping = asyncio.create_task(self._until(lambda: self._finish))
        done, _ = await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if joining in done:
            stopping.cancel()
            return joining.result()
        joining.cancel()
        stopping.result()
        raise _Over("stopped")

    async def _try_to_join(self) -> str:
        for left in reversed(range(_JOIN_TRIES)):
            try:
                return await self._room.join()
            except CannotJoin as error:
                if not left:
                    raise _Impossible(Broke("EGRESS_FAILED", str(error), 500, retry=True)) from error
                await asyncio.sleep(_JOIN_PAUSE_SEC)
        raise AssertionError

    def _publisher(self) -> str:
        match self._source:
            case ParticipantSource(identity=identity):
                return identity
            case TrackCompositeSource(audio_track_id=audio, video_track_id=video):
                for member in self._room.members:
                    if any(one.sid == (video or audio) for one in member.publications):
                        return member.identity
        return ""

    async def _until(self, condition: Callable[[], bool], timeout_sec: float | None = None) -> bool:
        """Waits for it; False after the time. Raise _Over when there is no point in waiting."""
        deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
        while not condition():
            if reason := self._reason_to_end():
                raise _Over(reason)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._woken.clear()
            try:
                async with asyncio.timeout(left):
                    await self._woken.wait()
            except TimeoutError:
                pass
        return True

    # --- recording

    async def _record(self) -> str:
        await self._open()
        await self._until(self._has_pictures, self._plan.wait_for_others)
        assert self._timeline is not None
        self._on_change()
        self._timeline.start()
        while True:
            try:
                await self._until(lambda: False, self._to_next_look())
            except _Over as over:
                return over.reason
            await self._measure()

    def _to_next_look(self) -> float:
        assert self._timeline is not None
        if not self._plan.max_sec:
            return _MEASURE_SEC
        return min(_MEASURE_SEC, max(0.0, self._plan.max_sec - self._timeline.seconds))

    async def _open(self) -> None:
        """The encoders take their time to open, in which pictures are on their way already."""
        from adapters.recorder.program import Program

        plan = self._plan
        resolve = stream_resolver(allow_private=plan.allow_private_urls)
        self._program = await asyncio.to_thread(Program, plan, self._report, resolve=resolve)
        video = plan.encoding.video
        compositor = None
        if video is not None:
            from adapters.compositor.compositor import Compositor

            compositor = Compositor(video.width, video.height, video.fps)
        self._timeline = Timeline(
            self._program,
            compositor,
            self._clock,
            fps=video.fps if video is not None else 0,
            with_audio=plan.encoding.audio is not None,
            began=self._on_began,
            failed=self._on_failed,
            limit_sec=plan.max_sec,
        )
        self._timeline.live = bool(plan.destinations)
        self._apply(self._director.orders)

    def _has_pictures(self) -> bool:
        """Whether everybody who is to be seen can be."""
        awaited = self._director.tiles()
        feeds = self._room.feeds
        return all(
            (feed := feeds.get(sid)) is not None and feed.pictures is not None and feed.pictures.arrived > 0
            for sid in awaited
        )

    def _on_began(self, started_at: int) -> None:
        """In the timeline's thread, before its first frame."""
        note_start(self._plan, started_at)
        self._report(Active(started_at))

    def _on_failed(self, error: Exception) -> None:
        """In the timeline's thread."""
        self._failure = error
        self._loop.call_soon_threadsafe(self._woken.set)

    def _on_task_over(self, task: asyncio.Task[None]) -> None:
        """A recorder that hears no orders any more must not go on as if nothing were."""
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failure = error
            self._woken.set()

    def _reason_to_end(self) -> str:
        if self._failure is not None:
            disk = isinstance(self._failure, OSError)
            broke = Broke(
                "STORAGE_UPLOAD_FAILED" if disk else "INTERNAL",
                f"could not record: {self._failure}",
                500,
                retry=not disk,
            )
            raise _Impossible(broke) from self._failure
        if self._finish:
            return "stopped"
        if self._room.ended:
            return self._room.ended
        lost = self._room.lost_since
        if lost is not None and time.monotonic() - lost > self._patience.reconnect_sec:
            return "connection_lost"
        if self._director.show.over and self._room.lost_since is None:
            return "source_closed"
        return self._limit() or self._streams_over()

    def _limit(self) -> str:
        limit = self._plan.max_sec
        return "limit" if limit and self._timeline is not None and self._timeline.seconds >= limit else ""

    def _streams_over(self) -> str:
        return self._watched.over(self._program.running_streams) if self._program is not None else ""

    async def _measure(self) -> None:
        try:
            delays = await self._room.delays()
        except StatisticsFailed:
            delays = {}
        if delays:
            self._director.synchronise(delays)
        self._on_change()
        self._report(self._measured())

    def _measured(self) -> Measured:
        assert self._timeline is not None
        assert self._program is not None
        counts = self._timeline.counts
        return Measured(
            self._program.duration_ms,
            counts.composed,
            counts.repeated,
            counts.dropped,
            round(self._director.offset_ms, 1),
            self._program.bytes_written,
            tuple(counts.gaps),
        )

    # --- what changes while it runs

    def _on_change(self) -> None:
        """After anything that may change what is recorded."""
        self._director.look()
        self._attendance.note(self._room.members, self._room.feeds, self._now_ms())
        if self._timeline is not None:
            self._timeline.show(self._director.scene())
        self._tell_muted()
        self._woken.set()

    def _tell_muted(self) -> None:
        """Whoever listens by websocket learns when nobody is left who could be heard (livekit-surface 4.3)."""
        muted = self._director.muted
        if self._program is not None and muted != self._told_muted:
            self._told_muted = muted
            self._program.set_muted(muted=muted)

    def _now_ms(self) -> int:
        return round(self._timeline.position * 1000) if self._timeline is not None else 0

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_LISTEN_SEC)
            if self._director.listen():
                self._on_change()

    # --- orders and the end

    async def _follow(self) -> None:
        while not isinstance(order := await self._orders.get(), Finish):
            if isinstance(order, NewOrders):
                self._apply(order)
        self._finish = True
        self._woken.set()

    def _apply(self, order: NewOrders) -> None:
        program, timeline = self._program, self._timeline
        if timeline is not None and program is not None:
            if order.destinations != self._told:
                self._told = order.destinations
                timeline.call(partial(self._redirect, program, order.destinations))
            if order.paused == "cut":
                timeline.cut(on=True)
        self._director.orders = order
        self._on_change()
        if timeline is not None and order.paused != "cut":
            # After the scene, of which the first frame is.
            timeline.cut(on=False)

    def _redirect(self, program: Program, destinations: Sequence[Destination]) -> None:
        """In the timeline's thread. Streams that have not begun must not be taken for failed ones."""
        program.set_destinations(destinations)
        self._watched.want(destinations)
        if self._timeline is not None:
            self._timeline.live = bool(destinations)

    async def _end(self, reason: str) -> None:
        now = time.time_ns()
        timeline = self._timeline
        if timeline is not None:
            await asyncio.to_thread(timeline.stop)
        media = timeline is not None and timeline.counts.composed > 0
        closing = asyncio.create_task(self._room.close())
        if media:
            self._attendance.close(self._now_ms())
        problem = await self._close_program()
        if problem is None and media and self._program is not None:
            self._report(self._measured())
            now = self._program.started_at + self._program.duration_ms * 1_000_000
        await closing
        self._report(problem or Ended(reason, now, media))

    async def _close_program(self) -> Broke | None:
        """What of it can be written, is."""
        if self._timeline is not None:
            await asyncio.to_thread(self._timeline.stop)
        if self._program is None:
            return None
        try:
            await asyncio.to_thread(self._program.finish)
        except OSError as error:
            return Broke("STORAGE_UPLOAD_FAILED", f"could not record: {error}", 500)
        return None
