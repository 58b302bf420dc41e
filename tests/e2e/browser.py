"""A headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # refuses to start as root otherwise; only our own page is opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--remote-debugging-port=0",
    "--window-size=1100,900",
)
# A camera and a microphone without hardware, and without the question whether they may be used.
_FAKE_DEVICES = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
_START_SEC = 40.0
_ANSWER_SEC = 30.0


class Page:
    """One tab. What it logs is kept in `messages`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.messages: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._ids)
        self._pending[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        try:
            async with asyncio.timeout(_ANSWER_SEC):
                return await self._pending[number]
        finally:
            del self._pending[number]

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are awaited."""
        result = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def click(self, element_id: str) -> None:
        """A press of the left mouse button, which counts as the user's where a script's click does not."""
        box = await self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.getElementById({json.dumps(element_id)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1
            )

    async def screenshot(self, path: Path) -> None:
        shot = await self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def close(self) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if (waiting := self._pending.get(event.get("id"))) is not None:
                waiting.set_result(event.get("result") or event)
            elif "id" in event:
                continue  # nobody waits for it any more
            elif event["method"] == "Log.entryAdded":
                self.messages.append(event["params"]["entry"]["text"])
            elif event["method"] == "Runtime.exceptionThrown":
                self.messages.append(event["params"]["exceptionDetails"]["text"])


@asynccontextmanager
async def opened_page(url: str, *, fake_devices: bool = False) -> AsyncIterator[Page]:
    """A page in a browser of its own; skips, saying why, where there is no Chromium."""
    binary = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if binary is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    profile = Path(tempfile.mkdtemp(prefix="bax-chromium-"))
    process = await asyncio.create_subprocess_exec(
        binary,
        *_FLAGS,
        *(_FAKE_DEVICES if fake_devices else ()),
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile, process)
        async with aiohttp.ClientSession() as http:
            async with http.put(f"http://127.0.0.1:{port}/json/new") as answer:
                address = (await answer.json())["webSocketDebuggerUrl"]
            async with http.ws_connect(address, max_msg_size=64 * 1024 * 1024) as socket:
                page = Page(socket)
                try:
                    for domain in ("Page", "Runtime", "Log"):
                        await page.send(f"{domain}.enable")
                    await page.send("Page.navigate", url=url)
                    yield page
                finally:
                    await page.close()
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _port(profile: Path, process: asyncio.subprocess.Process) -> int:
    """The port that it chose, which it writes into its profile."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(_START_SEC):
        while True:
            assert process.returncode is None, "Chromium did not start"
            if file.exists() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            await asyncio.sleep(0.05)
