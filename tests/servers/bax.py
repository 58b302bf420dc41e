"""A real `bax serve` as a process of its own, and calls to it as any client would make them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
BAX = (sys.executable, "-c", "from server.cli import main; main()")
API_KEY = "bax_test" + "0" * 36
PROJECT = "cl_default"
ADMIN_TOKEN = "admin-token-of-the-tests"
START_TIMEOUT_SEC = 60.0
_ADDRESS = re.compile(r"^  (HTTP|gRPC) +(\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class BaxServer:
    """One data directory, and at most one server on it at a time; `start` again after `stop` to restart it."""

    def __init__(self, folder: Path, role: str = "all", **settings: str) -> None:
        self.data_dir = folder
        self.url = ""
        self.grpc_address = ""
        self._role = role
        self._settings = {
            "BAX_ALLOW_PRIVATE_URLS": "1",
            "BAX_BOOTSTRAP_API_KEY": API_KEY,
            "BAX_ADMIN_TOKEN": ADMIN_TOKEN,
            # Tests of rooms turn it on; the others need not wait for it, nor share its ports.
            "BAX_LIVEKIT_EMBEDDED": "0",
            **{f"BAX_{name.upper()}": value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._runs = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {API_KEY}", "x-project-id": PROJECT}

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def printed(self) -> str:
        """Standard output of the latest run."""
        return self._output("out").read_text()

    @property
    def log(self) -> str:
        """Standard error of the latest run."""
        return self._output("err").read_text()

    def environment(self) -> dict[str, str]:
        return clean_environment({"BAX_DATA_DIR": str(self.data_dir), **self._settings})

    def start(self) -> None:
        """Returns when it is ready; the ports are free ones, unless `http_port` was given."""
        self._runs += 1
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ports = ["--http-port", self._settings.get("BAX_HTTP_PORT", "0"), "--grpc-port", "0"]
        command = [*BAX, "serve", "--role", self._role, *ports]
        with self._output("out").open("wb") as out, self._output("err").open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SEC
        while "BaxCloud is ready" not in self.printed:
            assert self._process.poll() is None, f"the server did not start:\n{self.log}"
            assert time.monotonic() < deadline, f"the server was not ready in time:\n{self.log}"
            time.sleep(0.05)
        addresses = dict(_ADDRESS.findall(self.printed))
        self.url, self.grpc_address = addresses.get("HTTP", ""), addresses.get("gRPC", "")

    def stop(self, how: signal.Signals = signal.SIGTERM, *, within: float = 60.0) -> int:
        """Sends the signal; the exit status."""
        self.process.send_signal(how)
        return self.process.wait(within)

    def kill(self) -> None:
        """Whatever state it is in, and everything that it started."""
        if self._process is not None:
            if self._settings["BAX_LIVEKIT_EMBEDDED"] != "0":
                # Its LiveKit is made to outlive a crash; only a server that ends in order takes it along.
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def call(
        self, verb: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request with the project's key unless `headers` are given; `body` is sent as JSON, bytes as they are."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            sent = dict(self.headers if headers is None else headers)
            if body is not None and not isinstance(body, bytes):
                sent.setdefault("content-type", "application/json")
                body = json.dumps(body).encode()
            connection.request(verb, path, body=body, headers=sent)
            reply = connection.getresponse()
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, names, reply.read())
        finally:
            connection.close()

    def finished(self, job_id: str, *, within: float = 60.0) -> dict[str, Any]:
        """The job once it has ended."""
        deadline = time.monotonic() + within
        while True:
            job: dict[str, Any] = self.call("GET", f"/video/jobs/{job_id}").json
            if job["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
                return job
            assert time.monotonic() < deadline, f"not finished in {within} s: {job}"
            time.sleep(0.1)

    def reached(self, job_id: str, status: str, *, within: float = 30.0) -> dict[str, Any]:
        """The job once it shows `status`."""
        deadline = time.monotonic() + within
        while True:
            job: dict[str, Any] = self.call("GET", f"/video/jobs/{job_id}").json
            if job["status"] == status:
                return job
            assert time.monotonic() < deadline, f"not {status} in {within} s: {job}"
            time.sleep(0.05)

    def _output(self, kind: str) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.{self._role}.{self._runs}.{kind}"


def run_bax(
    *arguments: str, env: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`bax` with these arguments; `env` holds its settings, nothing else of the shell's `BAX_*` reaches it."""
    return subprocess.run(
        [*BAX, *arguments],
        cwd=folder,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("BAX_")}
    # The checkout need not be the folder that the command runs in.
    return {**own, "PYTHONPATH": str(ROOT), **settings}


@contextlib.contextmanager
def bax_server(folder: Path, role: str = "all", **settings: str) -> Iterator[BaxServer]:
    """A started server over `folder`; `settings` without `BAX_`."""
    server = BaxServer(folder, role, **settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()
