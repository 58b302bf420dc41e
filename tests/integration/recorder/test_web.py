"""Pages in a real Chromium: what is seen and heard, their signals, and what they may not reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from adapters.recorder.web import record_page
from adapters.web.programs import missing_programs
from server.domain.egress import AudioEncoding, Destination, Encoding, VideoEncoding
from server.domain.egress_sources import RoomSource, Source, WebSource
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Finish,
    FromRecorder,
    Measured,
    NewOrders,
    RecorderPlan,
    ToRecorder,
    WantedImages,
)
from tests.conftest import Eventually
from tests.servers.http import bound_socket, serving
from tests.servers.rtmp import rtmp_server

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"web egress needs {' '.join(missing_programs())}: apt-get install them"
)

_PAGE = """<body style="margin:0;background:rgb(200,40,40)"><script>
const sound = new AudioContext(), tone = sound.createOscillator();
tone.frequency.value = 440; tone.connect(sound.destination); tone.start();
setTimeout(() => console.log("START_RECORDING"), 300);
if (location.search.includes("end")) setTimeout(() => console.log("END_RECORDING"), 4000);
</script>"""
_TEMPLATE = """<body style="margin:0;background:rgb(40,40,200)"><script>
fetch("/asked" + location.search); console.log("START_RECORDING");</script>"""


class Site:
    """Pages on loopback; `asked` are the addresses that pages of ours fetched."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with bound_socket() as listener:
        site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def asked(request: Request) -> Response:
            site.asked.append(str(request.url))
            return Response()

        pages = {
            "/page": _PAGE,
            "/template": _TEMPLATE,
            "/error": '<div class="error">no such room</div>',
        }
        routes = [Route(path, lambda _, html=html: HTMLResponse(html)) for path, html in pages.items()]
        async with serving(Starlette(routes=[*routes, Route("/asked", asked)]), listener):
            yield site


class Session:
    """A recorder of one page in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders: asyncio.Queue[ToRecorder] = asyncio.Queue()
        self.reports: list[FromRecorder] = []

    def last(self, kind: type[FromRecorder]) -> FromRecorder | None:
        return next((report for report in reversed(self.reports) if isinstance(report, kind)), None)

    @contextlib.asynccontextmanager
    async def recording(
        self, source: Source, *, private: bool = True, layout: str = "grid", **more: Any
    ) -> AsyncIterator[None]:
        plan = RecorderPlan(
            egress_id="EG_web",
            url="ws://127.0.0.1:7880",
            token="a token",
            source=source,
            encoding=Encoding(VideoEncoding(width=640, height=360, kbps=800), AudioEncoding()),
            folder=str(self.folder),
            container="mp4",
            layout=layout,
            allow_private_urls=private,
            **more,
        )
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(record_page(plan, self.orders, self.reports.append))
            yield


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def _recorded(session: Session, seconds: float) -> Callable[[], bool]:
    def enough() -> bool:
        measured = session.last(Measured)
        return isinstance(measured, Measured) and measured.duration_ms >= seconds * 1000

    return enough


async def test_a_page_is_seen_and_heard(site: Site, session: Session, eventually: Eventually) -> None:
    """LK-37: any page; the whole canvas is the page, and its tone is in the file."""
    async with session.recording(WebSource(f"{site.url}/page")):
        await eventually(_recorded(session, 3), within=40)
        session.orders.put_nowait(Finish())
    end = session.last(Ended)
    assert isinstance(end, Ended)
    assert (end.reason, end.media) == ("stopped", True)
    assert (session.folder / "part-000.json").exists()
    with av.open(str(session.folder / "part-000.mp4")) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        file.seek(0)
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(pictures) == end_frames(session)
    for spot in ((2, 2), (180, 320), (357, 637)):
        assert np.allclose(pictures[-1][spot], (200, 40, 40), atol=12)
    loud = sound[-44100:]
    # By its strongest tone: a browser on a busy machine leaves clicks.
    strongest = np.abs(np.fft.rfft(loud * np.hanning(len(loud)))).argmax()
    assert strongest * 44100 / len(loud) == pytest.approx(440, abs=3)


async def test_a_page_goes_into_every_output_at_once(
    site: Site, session: Session, eventually: Eventually
) -> None:
    """Issue sections 1 and 2: file, segments, images and a stream of one encode."""
    (session.folder / "rtmp").mkdir()
    with rtmp_server(session.folder / "rtmp") as server:
        outputs: dict[str, Any] = {
            "segment_sec": 2,
            "images": (WantedImages(1, 320, 180),),
            "streams": "rtmp",
            "destinations": (Destination("one", server.url("one")),),
        }
        async with session.recording(WebSource(f"{site.url}/page"), **outputs):
            await eventually(_recorded(session, 5), within=40)
            session.orders.put_nowait(Finish())
        await eventually(lambda: not server.publishing())
        (received,) = server.recorded("one")
        segments = sorted(session.folder.glob("seg-000-*.ts"))
        assert len(segments) >= 3
        assert sum(_reds(path) for path in segments) == _reds(session.folder / "part-000.mp4")
        assert _reds(session.folder / "part-000.mp4") == end_frames(session)
        assert _reds(received) >= 60
    images = sorted(session.folder.glob("image-*.jpeg"))
    assert len(images) >= 5
    for path in images:
        with Image.open(path) as image:
            assert image.size == (320, 180)
            assert np.allclose(np.asarray(image.convert("RGB"))[90, 160], (200, 40, 40), atol=12)


def _reds(path: Path) -> int:
    """How many pictures of the page it has; all must be."""
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert all(np.allclose(picture[180, 320], (200, 40, 40), atol=12) for picture in pictures)
    return len(pictures)


def end_frames(session: Session) -> int:
    measured = session.last(Measured)
    assert isinstance(measured, Measured)
    return measured.composed


async def test_a_browser_that_dies_leaves_what_was_recorded(
    site: Site, session: Session, eventually: Eventually
) -> None:
    """Issue section 5: another recorder goes on, with a part of its own."""
    async with session.recording(WebSource(f"{site.url}/page")):
        await eventually(_recorded(session, 1), within=40)
        os.kill(_browser(session.folder), signal.SIGKILL)
    broke = session.reports[-1]
    assert broke == Broke("EGRESS_FAILED", "the browser ended", 500, retry=True)
    with av.open(str(session.folder / "part-000.mp4")) as file:
        assert len(list(file.decode(video=0))) == end_frames(session)


def _browser(folder: Path) -> int:
    """The first process of the browser whose profile is in that folder."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ours = any(word.startswith(f"--user-data-dir={folder}".encode()) for word in words)
            if entry.name.isdigit() and ours and not any(word.startswith(b"--type=") for word in words):
                return int(entry.name)
    raise AssertionError("no browser")


async def test_a_page_begins_and_ends_the_recording_itself(site: Site, session: Session) -> None:
    """Livekit-surface 5.2: START_RECORDING is waited for, END_RECORDING ends it."""
    async with session.recording(WebSource(f"{site.url}/page?end", await_start_signal=True)):
        pass
    end = session.last(Ended)
    assert isinstance(end, Ended)
    assert end.reason == "source_closed"
    with av.open(str(session.folder / "part-000.mp4")) as file:
        # From one signal to the other; a browser on a busy machine lets either come late.
        assert 0.5 < float(file.duration or 0) / av.time_base < 8


async def test_a_template_gets_what_it_needs_to_join(
    site: Site, session: Session, eventually: Eventually
) -> None:
    """LK-12: layout, url and token in the query; the page's own query stays."""
    async with session.recording(RoomSource(base_url=f"{site.url}/template?mine=1"), layout="speaker"):
        await eventually(lambda: site.asked and session.last(Active), within=40)
        session.orders.put_nowait(Finish())
    assert "mine=1&layout=speaker&url=ws%3A%2F%2F127.0.0.1%3A7880&token=a+token" in site.asked[0]


async def test_a_pause_is_cut_out_or_shows_a_card(
    site: Site, session: Session, eventually: Eventually
) -> None:
    async with session.recording(WebSource(f"{site.url}/page")):
        await eventually(_recorded(session, 1), within=40)
        session.orders.put_nowait(NewOrders(paused="card"))
        await eventually(_recorded(session, 3), within=40)
        session.orders.put_nowait(NewOrders(paused="cut"))
        session.orders.put_nowait(Finish())
    with av.open(str(session.folder / "part-000.mp4")) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert np.allclose(pictures[10][5, 5], (200, 40, 40), atol=12)
    assert not np.allclose(pictures[-5][5, 5], (200, 40, 40), atol=60)


@pytest.mark.parametrize(
    ("path", "said"),
    [("/nothing", "page load error: HTTP 404"), ("/error", "template error: no such room")],
)
async def test_a_page_that_cannot_be_shown_says_why(
    site: Site, session: Session, path: str, said: str
) -> None:
    async with session.recording(WebSource(site.url + path)):
        pass
    assert session.reports == [Broke("EGRESS_FAILED", said, 400)]


async def test_a_page_reaches_no_private_address(site: Site, session: Session) -> None:
    """Design section 13: not itself, and nothing that it asks for."""
    async with session.recording(WebSource(f"{site.url}/page"), private=False):
        pass
    broke = session.last(Broke)
    assert isinstance(broke, Broke)
    assert broke.message.startswith("page load error")
    assert site.url not in broke.message
