"""`make demo`: start the server on its embedded defaults, run a tour against it, stay up until Ctrl-C.

`DEMO_EXIT=1` ends it after the tour with the tour's status. State is kept in `.bax`, so that a second demo still has what
the first one made.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tools.demo_inbox import TourFailed
from tools.demo_rooms import people_in_rooms
from tools.demo_tour import DemoServer, Tour

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BAX_DATA_DIR") or ROOT / ".bax").absolute()
LOG = DATA / "demo.log"
PROJECT = "cl_default"
HTTP_PORT, GRPC_PORT = 8080, 50051
# The rest of the caller's settings would lead the tour elsewhere.
KEPT = frozenset({"BAX_FFMPEG", "BAX_LIVEKIT_SERVER", "BAX_LOG_LEVEL"})
START_TIMEOUT_SEC = 60
STOP_TIMEOUT_SEC = 60
_ADDRESSES = re.compile(r"^  HTTP +(?P<http>\S+)\n  gRPC +(?P<grpc>\S+)$", re.MULTILINE)


def main() -> int:
    console = Console(highlight=False)
    stay = os.environ.get("DEMO_EXIT", "") in ("", "0")
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C: a demo that is told to go takes its server along.
        signal.signal(number, signal.default_int_handler)
    try:
        # Whoever the tour brings into a room stays there as long as the demo.
        with _server(console) as (server, process), people_in_rooms(DATA / "demo.people.log") as people:
            asyncio.run(Tour(server, console, people).run())
            if not stay:
                return 0
            return _stay(process, console)
    except TourFailed as failed:
        console.print(f"\n[bold red]The tour failed:[/] {failed}", soft_wrap=True)
        console.print(f"The server's log is {LOG}.")
        return 1
    except KeyboardInterrupt:
        return 130


def _stay(process: subprocess.Popen[bytes], console: Console) -> int:
    try:
        console.print(f"\nThe server stays up; its log is {_shown(LOG)}. [bold]Ctrl-C ends it.[/]")
        process.wait()
    except KeyboardInterrupt:
        return 0
    raise TourFailed(f"the server ended by itself with status {process.returncode}")


@contextmanager
def _server(console: Console) -> Iterator[tuple[DemoServer, subprocess.Popen[bytes]]]:
    DATA.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = _api_key()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BAX_") or name in KEPT},
        # The clip and the webhook receiver of the tour are on this machine.
        "BAX_ALLOW_PRIVATE_URLS": "1",
        "BAX_BOOTSTRAP_API_KEY": key,
        "BAX_BOOTSTRAP_PROJECT_ID": PROJECT,
        "BAX_DATA_DIR": str(DATA),
        "BAX_HTTP_PORT": str(_free_or_any(HTTP_PORT)),
        "BAX_GRPC_PORT": str(_free_or_any(GRPC_PORT)),
    }
    console.print("[bold]Starting the server[/]  [dim]bax serve[/]")
    with LOG.open("w") as log:
        # A group of its own: Ctrl-C reaches the demo, which then stops the server in order.
        process = subprocess.Popen(
            [sys.executable, "-c", "from server.cli import main; main()", "serve"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            http, grpc = _wait_for_addresses(process)
            yield DemoServer(http, grpc, PROJECT, key, DATA), process
        finally:
            _stop(process)


def _wait_for_addresses(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    deadline = time.monotonic() + START_TIMEOUT_SEC
    while (found := _ADDRESSES.search(LOG.read_text())) is None:
        if process.poll() is not None:
            raise TourFailed(f"the server did not start:\n{LOG.read_text()[-2000:].strip()}")
        if time.monotonic() > deadline:
            raise TourFailed(f"the server was not ready within {START_TIMEOUT_SEC} s")
        time.sleep(0.05)
    return found["http"], found["grpc"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SEC)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


def _api_key() -> str:
    """The demo's own key, the same in every demo on this data directory."""
    path = DATA / "demo.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"bax_demo{secrets.token_hex(20)}\n")
    return path.read_text().strip()


def _free_or_any(port: int) -> int:
    """The port, or 0 (any) if something listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    raise SystemExit(main())
