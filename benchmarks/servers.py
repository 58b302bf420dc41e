"""Starts the servers that are measured, and reads from the kernel what they cost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "cl_benchmark"
KEY = "bax_benchmark_0123456789abcdef"
HEADERS: Mapping[str, str] = {"authorization": f"Bearer {KEY}", "x-project-id": PROJECT}
_START_TIMEOUT_SEC = 60.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A running process; `http` and `grpc` are `host:port`, empty where it does not listen."""

    process: subprocess.Popen[str]
    http: str
    grpc: str

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One REST call with the benchmark's key; the decoded answer."""
        request = urllib.request.Request(
            f"http://{self.http}{path}",
            None if body is None else json.dumps(body).encode(),
            {**HEADERS, "content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.status} {error.read().decode()}") from error

    def cpu_sec(self) -> float:
        """User and system time of the process and of all its children that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK

    def rss_mib(self) -> float:
        return self._status("VmRSS")

    def peak_mib(self) -> float:
        """Most resident memory since the start or the last `reset_peak`."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def bax(data_dir: Path, role: str, *, cpu: int | None = None, **settings: str) -> Iterator[Server]:
    """`bax serve` on free ports, its log in a file, on one processor if `cpu` is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BAX_")}
    environment |= {
        "BAX_BOOTSTRAP_API_KEY": KEY,
        "BAX_BOOTSTRAP_PROJECT_ID": PROJECT,
        "BAX_ALLOW_PRIVATE_URLS": "1",
        # A server of its own, which would run beside the one that is measured.
        "BAX_LIVEKIT_EMBEDDED": "0",
        **settings,
    }
    command = [str(Path(sys.executable).with_name("bax")), "serve", "--role", role]
    command += ["--http-port", "0", "--grpc-port", "0", "--data-dir", str(data_dir)]
    with _started(command, data_dir, cpu, environment) as (process, lines):
        addresses = {"HTTP": "", "gRPC": ""}
        assert next(lines).startswith("BaxCloud is ready")
        while role != "worker" and not all(addresses.values()):
            name, _, address = next(lines).strip().partition(" ")
            if name in addresses:
                addresses[name] = address.strip().removeprefix("http://")
        yield Server(process, addresses["HTTP"], addresses["gRPC"])


@contextmanager
def floor(name: str, *arguments: str, folder: Path, cpu: int | None = None) -> Iterator[Server]:
    """One of the applications of `benchmarks.floors` under uvicorn."""
    command = [sys.executable, "-m", "benchmarks.floors", name, *arguments]
    with _started(command, folder, cpu, dict(os.environ)) as (process, lines):
        yield Server(process, next(lines).strip(), "")


@contextmanager
def _started(
    command: Sequence[str], folder: Path, cpu: int | None, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stderr.log").open("w") as log, on_processor(cpu):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
    assert process.stdout is not None
    try:
        yield process, _lines(process, folder / "stderr.log")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _lines(process: subprocess.Popen[str], log: Path) -> Iterator[str]:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_TIMEOUT_SEC
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            break
        yield line
    raise RuntimeError(f"a server did not start: {log.read_text()[-2000:]}")


@contextmanager
def on_processor(cpu: int | None) -> Iterator[None]:
    """Runs the block, and what it starts, on one processor of those this process may use."""
    before = os.sched_getaffinity(0)
    if cpu is not None and len(before) > 1:
        os.sched_setaffinity(0, {sorted(before)[cpu]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
