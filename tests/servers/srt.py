"""A real SRT listener on loopback: FFmpeg, which writes what it receives into a file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.ffmpeg.binary import resolve_ffmpeg


class SrtListener:
    """Takes one caller, then ends; `start` waits for the next one."""

    def __init__(self, folder: Path, *, passphrase: str = "") -> None:
        self.folder = folder
        self.passphrase = passphrase
        self.received: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    def url(self, query: str = "") -> str:
        return f"srt://127.0.0.1:{self.port}{'?' if query else ''}{query}"

    def start(self) -> None:
        self.received.append(self.folder / f"srt-{len(self.received)}.ts")
        secret = f"&passphrase={self.passphrase}" if self.passphrase else ""
        self._process = subprocess.Popen(
            [
                resolve_ffmpeg(),
                *("-v", "quiet", "-nostdin", "-f", "data"),
                *("-i", f"srt://127.0.0.1:{self.port}?mode=listener{secret}"),
                *(
                    "-map",
                    "0",
                    "-c",
                    "copy",
                    "-f",
                    "data",
                    "-flush_packets",
                    "1",
                    "-y",
                    str(self.received[-1]),
                ),
            ]
        )
        deadline = time.monotonic() + 10
        while f"{self.port:04X}" not in _udp_ports():
            assert time.monotonic() < deadline
            assert self._process.poll() is None
            time.sleep(0.02)

    def wait(self, timeout_sec: float = 10.0) -> None:
        """Until the caller has gone and everything is written."""
        assert self._process is not None
        self._process.wait(timeout_sec)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def srt_listener(folder: Path, *, passphrase: str = "") -> Iterator[SrtListener]:
    listener = SrtListener(folder, passphrase=passphrase)
    try:
        yield listener
    finally:
        listener.kill()


def _udp_ports() -> set[str]:
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return {line.split()[1].rpartition(":")[2] for line in lines}
