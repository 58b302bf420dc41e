"""versitygw, a real S3 server over a folder: checks signatures, regions and expiry. Built once by `go install`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.servers.s3 import S3Server, free_port, running

VERSION = "v1.8.0"
_BUILD_TIMEOUT_SEC = 900


@contextlib.contextmanager
def versitygw_server(folder: Path, authority: trustme.CA | None = None) -> Iterator[S3Server]:
    """Starts versitygw over `folder`, with TLS if there is an `authority`; skips, saying why, where it can't be had."""
    binary = _binary()
    port = free_port()
    endpoint = f"http{'s' if authority else ''}://127.0.0.1:{port}"
    data = folder / "data"
    data.mkdir()
    trusted = str(folder / "authority.pem") if authority else None
    server = S3Server(endpoint, "versity-access", "versity-secret-key", ca_bundle=trusted)
    env = dict(os.environ, ROOT_ACCESS_KEY=server.access_key, ROOT_SECRET_KEY=server.secret_key)
    command = [str(binary), "--port", f"127.0.0.1:{port}", *_tls(folder, authority), "posix", str(data)]
    with running(command, url=endpoint, log=folder / "versitygw.log", env=env):
        yield server


def _tls(folder: Path, authority: trustme.CA | None) -> list[str]:
    if authority is None:
        return []
    authority.cert_pem.write_to_path(folder / "authority.pem")
    mine = authority.issue_cert("127.0.0.1", "s3.example")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    return ["--cert", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]


def _binary() -> Path:
    """The cached binary, built on first use; one build at a time."""
    named = os.environ.get("VERSITYGW")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baxcloud" / "bin"
    binary = cache / f"versitygw-{VERSION}" / "versitygw"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        pytest.skip("versitygw is not built and there is no Go to build it with")
    import fcntl

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "versitygw.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(go, binary.parent)
    return binary


def _build(go: str, folder: Path) -> None:
    package = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
    try:
        done = subprocess.run(
            [go, "install", package],
            env=dict(os.environ, GOBIN=str(folder)),
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"building versitygw took over {_BUILD_TIMEOUT_SEC} s")
    if done.returncode != 0:
        pytest.skip(f"versitygw could not be built: {done.stderr.strip()[-300:]}")
