"""One real server for all end-to-end tests of a session, a clip, and where the clip can be fetched."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.media import Clip, ClipFactory
from tests.servers.bax import BaxServer, bax_server


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s of 854×480 with sound."""
    factory = ClipFactory(tmp_path_factory.mktemp("clips"))
    return factory.clip(Clip(size="854x480", seconds=4))


@dataclass
class Source:
    """Serves the clip; `/held.mp4` is sent only after `release`."""

    address: str
    held: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.address}/clip.mp4"

    @property
    def held_url(self) -> str:
        return f"{self.address}/held.mp4"


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, clip: Path, source: Source, *args: object) -> None:
        self._clip = clip
        self._source = source
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path == "/held.mp4":
            self._source.held.wait(60)
        data = self._clip.read_bytes()
        # Whoever asked may have been stopped meanwhile.
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("content-type", "video/mp4")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def source(clip: Path) -> Iterator[Source]:
    found = Source("")
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, clip, found))
    found.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.held.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaxServer]:
    """Shared; one conversion at a time, small limits. Tests that stop a server start their own."""
    folder = tmp_path_factory.mktemp("server") / "bax"
    with bax_server(folder, conversion_concurrency="1", max_upload_bytes="8000000") as running:
        yield running
