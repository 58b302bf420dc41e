"""Records a page in a browser: web egress, and rooms composed by a template page of the user's (livekit-surface 5.2)."""

from __future__ import annotations

import asyncio
import json
import math
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from adapters.compositor.compositor import Compositor
from adapters.http.netguard import NetGuard
from adapters.recorder.program import Program
from adapters.recorder.streaming import stream_resolver
from adapters.web.browser import END_SIGNAL, START_SIGNAL, Browser, PageFailed, opened_browser
from adapters.web.display import opened_display
from adapters.web.programs import Programs, find_programs
from adapters.web.proxy import TrustedHost, opened_proxy
from adapters.web.sound import SAMPLE_RATE, opened_sound, recorded_sound
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
    from numpy.typing import NDArray

_SAMPLE_BYTES = 4
# Sound comes in blocks and not evenly: it is taken this much later, and so are pictures.
_DELAY_SEC = 0.12
# Sound that piles up while the encoder is busy is played, what is older than this is lost.
_MAX_SOUND_BYTES = 2 * SAMPLE_RATE * _SAMPLE_BYTES
_DEFAULT_SIZE = (1280, 720)
_ERROR_SELECTOR = "document.querySelector('div.error')?.textContent || ''"
_PAUSED = "Paused"


async def record_page(
    plan: RecorderPlan, orders: asyncio.Queue[ToRecorder], report: Callable[[FromRecorder], None]
) -> None:
    """Until an order to finish or the page's own END_RECORDING; reports `Ended` or `Broke` last."""
    try:
        programs = find_programs()
        with tempfile.TemporaryDirectory(prefix="page-", dir=plan.folder) as folder:
            async with opened_page(plan, programs, Path(folder)) as page:
                await _Recording(plan, orders, report, page).run()
    except FileNotFoundError as error:
        report(Broke("EGRESS_FAILED", str(error), 412))
    except PageFailed as error:
        report(Broke("EGRESS_FAILED", str(error), 400))
    except TimeoutError:
        report(Broke("EGRESS_FAILED", "the browser's screen or sound did not start", 500, retry=True))


class Page:
    """A page that is shown: its newest picture, its sound, its signals."""

    def __init__(self, sound: asyncio.StreamReader, display: str, size: tuple[int, int], fps: int) -> None:
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.browser: Browser | None = None
        self._sound = sound
        self._heard = bytearray()
        self._camera = _Camera(display, size, fps)

    def on_log(self, signal: str) -> None:
        (self.started if signal == START_SIGNAL else self.over).set()
        if signal == END_SIGNAL:
            self.started.set()

    async def listen(self) -> None:
        """Takes the sound in as it comes; pictures as well, from now on."""
        self._camera.start()
        while block := await self._sound.read(_MAX_SOUND_BYTES):
            self._heard += block
            if len(self._heard) > _MAX_SOUND_BYTES:
                del self._heard[: len(self._heard) - _MAX_SOUND_BYTES]

    def take_sound(self, samples: int) -> NDArray[np.int16]:
        """Exactly so many stereo samples; silence for what has not come."""
        wanted = samples * _SAMPLE_BYTES
        block = bytes(self._heard[:wanted])
        del self._heard[:wanted]
        return np.frombuffer(block.ljust(wanted, b"\0"), np.int16).reshape(-1, 2)

    def forget_sound(self) -> None:
        """What was heard before the recording is no part of it."""
        self._heard.clear()

    def keep_sound(self, seconds: float) -> None:
        """Only the newest: what was heard during a pause is no part of the recording."""
        kept = round(seconds * SAMPLE_RATE) * _SAMPLE_BYTES
        del self._heard[: max(len(self._heard) - kept, 0)]

    def picture(self) -> tuple[av.VideoFrame | None, int]:
        """The one that belongs to the sound that is taken now, and its number."""
        return self._camera.at(time.monotonic() - _DELAY_SEC)

    async def close(self) -> None:
        await asyncio.to_thread(self._camera.stop)


class _Camera:
    """Reads the screen in a thread, which FFmpeg's grabber paces."""

    def __init__(self, display: str, size: tuple[int, int], fps: int) -> None:
        self._display = display
        self._options = {
            "video_size": f"{size[0]}x{size[1]}",
            "framerate": str(fps),
            "draw_mouse": "0",
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._film, name="camera", daemon=True)
        self._pictures: deque[tuple[float, av.VideoFrame, int]] = deque(maxlen=round(_DELAY_SEC * fps) + 3)

    def at(self, moment: float) -> tuple[av.VideoFrame | None, int]:
        """The newest picture of that moment; the oldest there is when all are newer."""
        found: tuple[av.VideoFrame | None, int] = (None, 0)
        for taken, frame, number in tuple(self._pictures):
            if taken > moment and found[0] is not None:
                break
            found = (frame, number)
        return found

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _film(self) -> None:
        import av
        from av.error import FFmpegError

        with suppress(FFmpegError), av.open(self._display, format="x11grab", options=self._options) as screen:
            for number, frame in enumerate(screen.decode(video=0), 1):
                self._pictures.append((time.monotonic(), frame, number))
                if self._over.is_set():
                    return


@asynccontextmanager
async def opened_page(plan: RecorderPlan, programs: Programs, folder: Path) -> AsyncIterator[Page]:
    """The page of the plan, loaded. Raise PageFailed, TimeoutError."""
    video = plan.encoding.video
    size = (video.width, video.height) if video else _DEFAULT_SIZE
    async with AsyncExitStack() as stack:
        display = await stack.enter_async_context(opened_display(programs, folder, *size))
        # The grabber, in this process, finds its way by the environment only.
        os.environ.update(display)
        server = await stack.enter_async_context(opened_sound(programs, folder))
        heard = await stack.enter_async_context(recorded_sound(programs, folder, server))
        page = Page(heard, display["DISPLAY"], size, video.fps if video else 1)
        stack.push_async_callback(page.close)
        guard = NetGuard(allow_private=plan.allow_private_urls)
        proxy = None
        if not plan.allow_private_urls:
            proxy = await stack.enter_async_context(opened_proxy(guard, _livekit(plan)))
        page.browser = await stack.enter_async_context(
            opened_browser(
                programs,
                folder,
                size,
                {**display, **server},
                page.on_log,
                proxy=proxy,
                udp=isinstance(plan.source, RoomSource),
            )
        )
        listening = asyncio.create_task(page.listen(), name="page sound")
        stack.callback(listening.cancel)
        await page.browser.open(page_url(plan))
        if problem := await page.browser.value(_ERROR_SELECTOR):
            raise PageFailed(f"template error: {str(problem).strip()[:200]}")
        yield page


def page_url(plan: RecorderPlan) -> str:
    """The page's own address, or the template's with what it needs to join."""
    if isinstance(plan.source, WebSource):
        return plan.source.url
    assert isinstance(plan.source, RoomSource)
    base = plan.source.base_url
    query = urlencode({"layout": plan.layout, "url": plan.url, "token": plan.token})
    return f"{base}{'&' if urlsplit(base).query else '?'}{query}"


def _livekit(plan: RecorderPlan) -> TrustedHost | None:
    parts = urlsplit(plan.url)
    if not isinstance(plan.source, RoomSource) or not parts.hostname:
        return None
    return TrustedHost(parts.hostname, parts.port or (443 if parts.scheme in ("wss", "https") else 80))


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
        self._size = (video.width, video.height) if video else _DEFAULT_SIZE
        self._composed = self._repeated = self._samples = self._shown = 0
        self._gaps: list[dict[str, int | str]] = []
        self._paused = ""
        self._uncut = asyncio.Event()
        self._pause(plan.paused)
        self._card: av.VideoFrame | None = None
        self._canvas: Any = None

    async def run(self) -> None:
        self._report(Joined())
        following = asyncio.create_task(self._follow(), name="orders")
        try:
            reason = await self._until_over(following)
            media = self._composed > 0
            loop = asyncio.get_running_loop()
            measured = await loop.run_in_executor(self._encoder, self._program.finish)
            self._report(self._measured(measured.bytes))
            self._report(Ended(reason, time.time_ns(), media=media))
        finally:
            following.cancel()
            self._encoder.shutdown(wait=False)

    async def _until_over(self, following: asyncio.Task[None]) -> str:
        source = self._plan.source
        if isinstance(source, RoomSource) or (isinstance(source, WebSource) and source.await_start_signal):
            waiting = asyncio.create_task(self._page.started.wait())
            await asyncio.wait({waiting, following}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        if following.done():
            return "stopped"
        return await self._film(following)

    async def _film(self, following: asyncio.Task[None]) -> str:
        loop = asyncio.get_running_loop()
        self._page.forget_sound()
        await self._begin()
        began = loop.time() + _DELAY_SEC
        second = began + 1
        assert self._page.browser is not None
        while True:
            if reason := self._over(following):
                return reason
            if self._paused == "cut":
                paused_at = loop.time()
                await self._while_cut(following)
                gone = loop.time() - paused_at
                began, second = began + gone, second + gone
                self._program.started_at += round(gone * 1e9)
                self._gaps.append(
                    {
                        "startMs": self._program.duration_ms,
                        "durationMs": round(gone * 1000),
                        "reason": "PAUSED",
                    }
                )
                self._page.keep_sound(_DELAY_SEC)
                continue
            await asyncio.sleep(began + self._composed / self._fps - loop.time())
            await loop.run_in_executor(self._encoder, self._step)
            if loop.time() >= second:
                second = loop.time() + 1
                self._report(self._measured(self._program.bytes_written))

    def _over(self, following: asyncio.Task[None]) -> str:
        assert self._page.browser is not None
        if following.done():
            return "stopped"
        if self._page.over.is_set():
            return "source_closed"
        if self._page.browser.closed.is_set():
            raise PageFailed("the browser ended")
        if self._plan.max_sec and self._composed >= self._plan.max_sec * self._fps:
            return "limit"
        alone = not (self._plan.container or self._plan.segment_sec or self._plan.images)
        if alone and self._plan.streams and not self._program.running_streams:
            return "streams_failed"
        return ""

    async def _begin(self) -> None:
        started_at = time.time_ns()
        self._program.started_at = started_at
        if self._plan.container:
            sidecar = Path(self._plan.folder) / f"part-{self._plan.part:03d}.json"
            await asyncio.to_thread(sidecar.write_text, json.dumps({"startedAt": started_at}))
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
                self._program.set_destinations(order.destinations)

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
