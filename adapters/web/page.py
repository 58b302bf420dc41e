"""The page that is recorded: its newest picture, its sound and its signals."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import numpy as np

from adapters.http.netguard import NetGuard
from adapters.web.browser import END_SIGNAL, START_SIGNAL, Browser, PageFailed, opened_browser
from adapters.web.display import opened_display
from adapters.web.programs import Programs
from adapters.web.proxy import TrustedHost, opened_proxy
from adapters.web.sound import SAMPLE_RATE, opened_sound, recorded_sound
from server.domain.egress_sources import RoomSource, WebSource
from server.ports.recorder import RecorderPlan

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

# Sound comes in blocks and not evenly: it is taken this much later, and so are pictures.
DELAY_SEC = 0.12
DEFAULT_SIZE = (1280, 720)
_SAMPLE_BYTES = 4
# Sound that piles up while the encoder is busy is played, what is older than this is lost.
_MAX_SOUND_BYTES = 2 * SAMPLE_RATE * _SAMPLE_BYTES
_ERROR_SELECTOR = "document.querySelector('div.error')?.textContent || ''"


class Page:
    """A page that is shown: its newest picture, its sound, its signals."""

    def __init__(self, sound: asyncio.StreamReader, display: str, size: tuple[int, int], fps: int) -> None:
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.silent = asyncio.Event()
        self.browser: Browser | None = None
        self._sound = sound
        self._heard = bytearray()
        self._camera = _Camera(display, size, fps)

    def on_log(self, signal: str) -> None:
        (self.started if signal == START_SIGNAL else self.over).set()
        if signal == END_SIGNAL:
            self.started.set()

    async def listen(self) -> None:
        """Takes the sound in as it comes, until it comes no more; pictures as well, from now on."""
        self._camera.start()
        while block := await self._sound.read(_MAX_SOUND_BYTES):
            self._heard += block
            if len(self._heard) > _MAX_SOUND_BYTES:
                del self._heard[: len(self._heard) - _MAX_SOUND_BYTES]
        self.silent.set()

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
        return self._camera.at(time.monotonic() - DELAY_SEC)

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
        self._pictures: deque[tuple[float, av.VideoFrame, int]] = deque(maxlen=round(DELAY_SEC * fps) + 3)

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
    size = (video.width, video.height) if video else DEFAULT_SIZE
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
