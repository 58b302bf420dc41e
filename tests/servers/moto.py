"""moto's S3 as a process of its own: forgiving about signatures, complete in its API."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.s3 import S3Server, free_port, running


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """Starts `moto_server`; its log goes to `folder`."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, url=f"{endpoint}/moto-api/", log=folder / "moto.log"):
        yield S3Server(endpoint, "moto-access", "moto-secret-key")
