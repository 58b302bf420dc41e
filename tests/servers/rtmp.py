"""A real RTMP server on loopback: nginx with its RTMP module, that can be stopped, paused and brought back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from adapters.ffmpeg.binary import resolve_ffmpeg

_START_TIMEOUT_SEC = 10.0
_CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{modules}
events {{ worker_connections 256; }}
rtmp {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    application live {{ live on; record all; record_path {folder}/recorded; record_unique on; {more} }}
    application closed {{ live on; deny publish all; }}
  }}
}}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{stat}; location /stat {{ rtmp_stat all; }} }}
}}
"""
_MODULES = ("ngx_rtmp_module.so",)


class RtmpServer:
    """`url(key)` publishes; what was published lies in `recorded(key)` as FLV."""

    def __init__(self, folder: Path, *, more: str = "") -> None:
        self.folder = folder
        self.port = _free_port()
        self.stat_port = _free_port()
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "recorded").mkdir(parents=True, exist_ok=True)
        self.start()

    def url(self, key: str, app: str = "live") -> str:
        return f"rtmp://127.0.0.1:{self.port}/{app}/{key}"

    def start(self) -> None:
        config = self.folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                port=self.port,
                stat=self.stat_port,
                modules="".join(f"load_module /usr/lib/nginx/modules/{name};\n" for name in _MODULES),
                more=self._more,
            )
        )
        self._process = subprocess.Popen(
            ["nginx", "-p", str(self.folder), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while not _listens(self.port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "error.log").read_text()[-2000:])
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its kernel still takes connections and bytes; nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def drop(self) -> None:
        """Ends every connection, and comes back at once."""
        self.kill()
        self.start()

    def publishing(self) -> set[str]:
        """Keys that are being published."""
        connection = HTTPConnection("127.0.0.1", self.stat_port, timeout=5)
        try:
            connection.request("GET", "/stat")
            tree = ET.fromstring(connection.getresponse().read())
        finally:
            connection.close()
        return {
            stream.findtext("name", "")
            for stream in tree.iter("stream")
            if stream.find("publishing") is not None
        }

    def recorded(self, key: str) -> list[Path]:
        """One file for each time the key was published, in order."""
        found = (self.folder / "recorded").glob(f"{key}-*.flv")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self.kill()


@contextlib.contextmanager
def rtmp_server(folder: Path, *, more: str = "") -> Iterator[RtmpServer]:
    if shutil.which("nginx") is None or not Path("/usr/lib/nginx/modules", _MODULES[0]).exists():
        pytest.skip("nginx with its RTMP module is not installed")
    server = RtmpServer(folder, more=more)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def ffmpeg_listener(target: Path) -> Iterator[str]:
    """Another implementation: FFmpeg takes one publisher at the URL and writes to `target` until it leaves."""
    port = _free_port()
    url = f"rtmp://127.0.0.1:{port}/live/key"
    process = subprocess.Popen(
        [
            resolve_ffmpeg(),
            "-v",
            "quiet",
            "-nostdin",
            "-listen",
            "1",
            "-i",
            url,
            "-c",
            "copy",
            "-y",
            str(target),
        ]
    )
    try:
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while f"0100007F:{port:04X}" not in Path("/proc/net/tcp").read_text():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("FFmpeg does not listen")
            time.sleep(0.02)
        yield url
        process.wait(_START_TIMEOUT_SEC)
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
