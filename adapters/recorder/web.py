"""Records a page in a browser: web egress, and rooms composed by a template page of the user's (livekit-surface 5.2)."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from adapters.compositor.compositor import Compositor
from adapters.recorder.program import Program
from adapters.recorder.sidecar import note_start
from adapters.recorder.streaming import Watched, stream_resolver
from adapters.web.browser import PageFailed
from adapters.web.page import DEFAULT_SIZE, DELAY_SEC, Page, opened_page
from adapters.web.programs import find_programs
from adapters.web.sound import SAMPLE_RATE
from server.domain.egress_sources import RoomSource, WebSource
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
    import av

_PAUSED = "Paused"
# What is later than this is left out, for its sound is gone.
_STALL_SEC = 2.0

_T = TypeVar("_T")


async def record_page(
    plan: RecorderPlan, orders: asyncio.Queue[ToRecorder], report: Callable[[FromRecorder], None]
) -> None:
    """Until an order to finish or the page's own END_RECORDING; reports `Ended` or `Broke` last."""
    try:
        programs = find_programs()
    except FileNotFoundError as error:
        report(Broke("EGRESS_FAILED", str(error), 412))
        return
    try:
        with tempfile.TemporaryDirectory(prefix="page-", dir=plan.folder) as folder:
            async with opened_page(plan, programs, Path(folder)) as page:
                await _Recording(plan, orders, report, page).run()
    except PageFailed as error:
        report(Broke("EGRESS_FAILED", str(error), 400))
    except OSError:
        report(Broke("EGRESS_FAILED", "the browser's screen or sound did not start", 500, retry=True))


class _PageLost(Exception):
    """It was shown, and is no more: another try may go on. The message is for the caller."""


class _Recording:
    """The page on the recorder's clock."""

    def __init__(
        self,
        plan: RecorderPlan,
        orders: asyncio.Queue[ToRecorder],
        report: Callable[[FromRecorder], None],
        page: Page,
    ) -> None:
        self._plan = plan
        self._orders = orders
        self._report = report
        self._page = page
        resolve = stream_resolver(allow_private=plan.allow_private_urls)
        self._program = Program(plan, report, resolve=resolve)
        # One thread, as the program asks for, beside the loop that takes the sound in.
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="program")
        video = plan.encoding.video
        self._fps = video.fps if video else 50
        self._size = (video.width, video.height) if video else DEFAULT_SIZE
        self._composed = self._repeated = self._dropped = self._samples = self._shown = 0
        self._gaps: list[dict[str, int | str]] = []
        self._watched = Watched(plan)
        self._paused = ""
        self._uncut = asyncio.Event()
        self._pause(plan.paused)
        self._card: av.VideoFrame | None = None
        self._canvas: Any = None

    async def run(self) -> None:
        self._report(Joined())
        following = asyncio.create_task(self._follow(), name="orders")
        try:
            end = await self._record(following)
        except OSError as error:
            end = Broke("STORAGE_UPLOAD_FAILED", f"could not record: {error}", 500)
        finally:
            following.cancel()
            self._encoder.shutdown(wait=False)
        self._report(end)

    async def _record(self, following: asyncio.Task[None]) -> Ended | Broke:
        reason, lost = "", ""
        try:
            reason = await self._until_over(following)
        except _PageLost as loss:
            lost = str(loss)
        media = self._composed > 0
        measured = await self._in_program(self._program.finish)
        self._report(self._measured(measured.bytes))
        if lost:
            return Broke("EGRESS_FAILED", lost, 500, retry=True)
        return Ended(reason, time.time_ns(), media=media)

    async def _in_program(self, action: Callable[..., _T], *args: Any) -> _T:
        """The program belongs to its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._encoder, action, *args)

    async def _until_over(self, following: asyncio.Task[None]) -> str:
        source = self._plan.source
        if isinstance(source, RoomSource) or (isinstance(source, WebSource) and source.await_start_signal):
            waiting = asyncio.create_task(self._page.started.wait())
            await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        if following.done():
            following.result()
            return "stopped"
        return await self._film(following)

    async def _film(self, following: asyncio.Task[None]) -> str:
        loop = asyncio.get_running_loop()
        self._page.forget_sound()
        await self._begin()
        began = loop.time() + DELAY_SEC
        second = began + 1
        while True:
            if reason := self._over(following):
                return reason
            cut = self._paused == "cut"
            if cut:
                await self._while_cut(following)
            gone = loop.time() - (began + self._composed / self._fps)
            if cut or gone > _STALL_SEC:
                began += gone
                self._leave_out(gone, "PAUSED" if cut else "STALLED")
                continue
            await asyncio.sleep(-gone)
            await self._in_program(self._step)
            if loop.time() >= second:
                second = loop.time() + 1
                self._report(self._measured(self._program.bytes_written))

    def _leave_out(self, seconds: float, reason: str) -> None:
        if reason == "STALLED":
            self._dropped += round(seconds * self._fps)
        self._program.started_at += round(seconds * 1e9)
        self._gaps.append(
            {
                "startMs": self._program.duration_ms,
                "durationMs": round(seconds * 1000),
                "reason": reason,
            }
        )
        self._page.keep_sound(DELAY_SEC)

    def _over(self, following: asyncio.Task[None]) -> str:
        assert self._page.browser is not None
        if following.done():
            following.result()
            return "stopped"
        if self._page.over.is_set():
            return "source_closed"
        if self._page.browser.closed.is_set():
            raise _PageLost("the browser ended")
        if self._page.silent.is_set():
            raise _PageLost("the browser's sound ended")
        if self._plan.max_sec and self._composed >= self._plan.max_sec * self._fps:
            return "limit"
        return self._watched.over(self._program.running_streams)

    async def _begin(self) -> None:
        started_at = time.time_ns()
        self._program.started_at = started_at
        await asyncio.to_thread(note_start, self._plan, started_at)
        self._report(Active(started_at))

    async def _while_cut(self, following: asyncio.Task[None]) -> None:
        going_on = asyncio.create_task(self._uncut.wait())
        await asyncio.wait({going_on, following}, return_when=asyncio.FIRST_COMPLETED)
        going_on.cancel()
        if following.done():
            self._paused = ""

    def _step(self) -> None:
        """One frame and the sound up to its end; in the program's thread."""
        source = self._plan.source
        assert isinstance(source, WebSource | RoomSource)
        if not source.audio_only and self._plan.encoding.video is not None:
            self._program.video(self._frame(), self._composed)
        self._composed += 1
        if not source.video_only and self._plan.encoding.audio is not None:
            until = math.floor(self._composed * SAMPLE_RATE / self._fps)
            heard = self._page.take_sound(until - self._samples)
            self._program.audio(np.zeros_like(heard) if self._paused else heard)
            self._samples = until

    def _frame(self) -> av.VideoFrame:
        if self._paused:
            if self._card is None:
                self._card = Compositor(*self._size, self._fps).card(_PAUSED)
            return self._card
        picture, number = self._page.picture()
        if number == self._shown and self._canvas is not None:
            self._repeated += 1
        elif picture is not None:
            self._canvas = _as_video(picture)
        if self._canvas is None:
            self._canvas = Compositor(*self._size, self._fps).card("")
        self._shown = number
        return self._canvas  # type: ignore[no-any-return]

    async def _follow(self) -> None:
        """Ends with the order to finish."""
        while not isinstance(order := await self._orders.get(), Finish):
            if isinstance(order, NewOrders):
                self._pause(order.paused)
                await self._in_program(self._program.set_destinations, order.destinations)
                self._watched.want(order.destinations)

    def _pause(self, mode: str) -> None:
        self._paused = mode
        if mode == "cut":
            self._uncut.clear()
        else:
            self._uncut.set()

    def _measured(self, written: int) -> Measured:
        return Measured(
            self._program.duration_ms,
            composed=self._composed,
            repeated=self._repeated,
            dropped=self._dropped,
            bytes=written,
            gaps=tuple(self._gaps),
        )


def _as_video(picture: av.VideoFrame) -> av.VideoFrame:
    """What encoders take: planar 4:2:0, BT.709, limited range."""
    from av.video.reformatter import ColorRange, Colorspace

    return picture.reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
