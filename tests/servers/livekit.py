"""A real livekit-server that the tests start themselves, on ports of its own; it ends with the test run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.livekit.binary import find_binary
from adapters.livekit.ports import PortPlan
from adapters.livekit.server_config import Binding, config_text, keys_variable
from server.ports.livekit import LiveKitAddress

API_KEY = "APItests"
API_SECRET = "a-secret-of-the-tests-0123456789abcdef"
_START_TIMEOUT_SEC = 20.0
_PR_SET_PDEATHSIG = 1
# Any free ports, and none over TCP.
FREE_PORTS = PortPlan.of(signal=0, tcp=0, udp="0", fixed=(), loopback=True)


class LiveKitServer:
    """One server; it can be paused, killed and started again on the same ports. `webhook_url` gets its events."""

    def __init__(self, folder: Path, webhook_url: str | None = None) -> None:
        self._binary = livekit_binary()
        self._config = folder / "tests.yaml"
        self._log = folder / "livekit.log"
        ports = FREE_PORTS.choose("127.0.0.1", "127.0.0.1", None)
        self._config.write_text(
            config_text(Binding("127.0.0.1"), ports, api_key=API_KEY, webhook_url=webhook_url)
        )
        self.address = LiveKitAddress(
            url=f"http://127.0.0.1:{ports.signal}",
            public_url=f"ws://127.0.0.1:{ports.signal}",
            api_key=API_KEY,
            api_secret=API_SECRET,
        )
        self._process: subprocess.Popen[bytes] | None = None
        # `_die_with_parent` means the thread that forked, so it must live as long as the server.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="livekit")

    @property
    def settings(self) -> dict[str, str]:
        """How a server of ours is told to use it (`bax_server`)."""
        return {
            "livekit_url": self.address.url,
            "livekit_api_key": self.address.api_key,
            "livekit_api_secret": self.address.api_secret,
        }

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = self._spawner.submit(
                subprocess.Popen[bytes],
                [str(self._binary), "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LIVEKIT_KEYS": keys_variable({API_KEY: API_SECRET})},
                preexec_fn=_die_with_parent,
            ).result()
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"livekit-server did not start: {self.log[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its connections stay, it answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        self._spawner.shutdown()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address.url, timeout=2):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def livekit_server(folder: Path, webhook_url: str | None = None) -> Iterator[LiveKitServer]:
    """Starts a server; skips, saying why, where it can't be had."""
    server = LiveKitServer(folder, webhook_url)
    try:
        server.start()
        yield server
    finally:
        server.close()


def livekit_binary() -> Path:
    """The cached one, the one on PATH, or the one that LIVEKIT_SERVER names; skips the test where there is none."""
    named = os.environ.get("LIVEKIT_SERVER")
    try:
        return find_binary(Path(named) if named else None)
    except FileNotFoundError:
        pytest.skip("there is no livekit-server on this machine: bax livekit install (make livekit)")


def _die_with_parent() -> None:
    """A test run that is killed leaves no server behind (Linux)."""
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
