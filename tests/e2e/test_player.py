"""The result plays in a real browser through hls.js, from the page that the server brings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Eventually
from tests.e2e.browser import Page, opened_page
from tests.e2e.conftest import Source
from tests.servers.bax import ROOT, BaxServer

pytestmark = [
    pytest.mark.xdist_group("e2e"),
    pytest.mark.skipif(
        not (ROOT / "web/vendor/hls.min.js").exists(), reason="hls.js is not bundled: make setup"
    ),
]

_STATE = """(() => {
  const video = document.getElementById("video");
  return {time: video.currentTime, width: video.videoWidth, height: video.videoHeight, paused: video.paused,
          muted: video.muted, error: video.error && video.error.message, ended: video.ended,
          state: document.getElementById("state").textContent,
          levels: [...document.querySelectorAll("#levels button")].map((button) => button.textContent),
          frames: video.getVideoPlaybackQuality().totalVideoFrames,
          hosts: [...new Set(performance.getEntriesByType("resource").map((one) => new URL(one.name).host))]};
})()"""


@pytest.fixture(scope="module")
def stream(server: BaxServer, clip: Path) -> str:
    """Address of a converted clip's master playlist, in two renditions."""
    form = (
        b'--x\r\ncontent-disposition: form-data; name="outputFormats"\r\n\r\n["360p","480p"]\r\n'
        b'--x\r\ncontent-disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        + clip.read_bytes()
        + b"\r\n--x--\r\n"
    )
    headers = {**server.headers, "content-type": "multipart/form-data; boundary=x"}
    job = server.finished(server.call("POST", "/video/upload", form, headers).json["id"])
    address: str = job["outputUrl"]
    return address


def _state_of(page: Page) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def state() -> dict[str, Any]:
        found: dict[str, Any] = await page.value(_STATE)
        return found

    return state


async def test_the_result_plays_through_hls_js(
    server: BaxServer, stream: str, eventually: Eventually, tmp_path: Path
) -> None:
    """Issue 3, "Done when": frames are shown, time goes on, both renditions are offered, nothing comes from elsewhere."""
    async with opened_page(f"{server.url}/player/?src={quote(stream, safe='')}") as page:
        state = _state_of(page)

        async def plays() -> dict[str, Any] | None:
            seen = await state()
            assert seen["error"] is None, seen
            playing = seen["time"] > 0.5 and seen["frames"] > 5 and seen["state"].startswith("Playing")
            return seen if playing and seen["levels"] else None

        first = await eventually(plays, within=30)

        async def goes_on() -> bool:
            later = await state()
            return bool(later["time"] > first["time"] + 0.5 and later["frames"] > first["frames"])

        await eventually(goes_on, within=20)
        await page.screenshot(tmp_path / "player.png")

    assert (first["width"], first["height"]) in ((640, 360), (854, 480))
    assert first["muted"], "a page may start sound only after a click"
    assert len(first["levels"]) == 3, first["levels"]
    assert first["levels"][0] == "auto"
    assert first["state"].startswith("Playing")
    assert first["hosts"] == [server.url.removeprefix("http://")]
    assert page.messages == []


async def test_it_plays_to_the_end(server: BaxServer, stream: str, eventually: Eventually) -> None:
    """Every segment fits its neighbour: played fast, the last frame is reached without a fatal error."""
    async with opened_page(f"{server.url}/player/?src={quote(stream, safe='')}") as page:
        state = _state_of(page)

        async def started() -> bool:
            return bool((await state())["time"] > 0)

        await eventually(started, within=30)
        await page.value("document.getElementById('video').playbackRate = 4")

        async def ended() -> dict[str, Any] | None:
            seen = await state()
            assert seen["error"] is None, seen
            return seen if seen["ended"] else None

        last = await eventually(ended, within=30)

    assert last["time"] == pytest.approx(4.0, abs=0.15)


async def test_a_rendition_can_be_chosen(server: BaxServer, stream: str, eventually: Eventually) -> None:
    async with opened_page(f"{server.url}/player/?src={quote(stream, safe='')}") as page:
        state = _state_of(page)

        async def offered() -> bool:
            return len((await state())["levels"]) == 3

        await eventually(offered, within=30)
        await page.value("document.querySelectorAll('#levels button')[1].click()")

        async def shows_the_small_one() -> bool:
            seen = await state()
            return bool(
                (seen["width"], seen["height"]) == (640, 360) and seen["state"].startswith("Playing 640×360")
            )

        await eventually(shows_the_small_one, within=30)


async def test_it_plays_while_it_is_still_encoding(
    server: BaxServer, source: Source, eventually: Eventually
) -> None:
    """The job shows `outputUrl` and `playableAt` early, and what lies there then is already a stream."""
    answer = server.call("POST", "/video/convert", {"inputUrl": source.url})
    assert answer.status == 201, answer.body
    created = answer.json

    def playable() -> dict[str, Any] | None:
        job: dict[str, Any] = server.call("GET", f"/video/jobs/{created['id']}").json
        assert job["status"] != "FAILED", job
        return job if "playableAt" in job else None

    job = await eventually(playable, within=60)
    async with opened_page(f"{server.url}/player/?src={quote(job['outputUrl'], safe='')}") as page:
        state = _state_of(page)

        async def plays() -> bool:
            return bool((await state())["time"] > 0.5)

        await eventually(plays, within=40)

    assert server.finished(created["id"])["status"] == "COMPLETED"


async def test_an_address_without_a_stream_is_told(server: BaxServer, eventually: Eventually) -> None:
    async with opened_page(
        f"{server.url}/player/?src={quote(server.url + '/o/none/master.m3u8', safe='')}"
    ) as page:
        state = _state_of(page)

        async def refused() -> bool:
            return bool((await state())["state"].startswith("Cannot play"))

        await eventually(refused, within=30)
