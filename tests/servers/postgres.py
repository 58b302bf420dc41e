"""A real PostgreSQL that the tests start themselves, with a fresh database for each that asks."""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

_PROGRAMS = ("initdb", "postgres")
_START_TIMEOUT_SEC = 30.0
_PR_SET_PDEATHSIG = 1
# Durability of the test server itself is not under test; kill -9 of postgres is (it survives in the page cache).
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "120",
    "listen_addresses": "127.0.0.1",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "logging_collector": "off",
}


class PostgresServer:
    """One server over a private data directory; it can be stopped, killed and started again on the same port."""

    def __init__(self, binaries: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
        self.port = _free_port()
        self._binaries = binaries
        self._folder = folder
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        # `_die_with_parent` means the thread that forked, so it must live as long as the server.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="postgres")

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Makes the data directory (about a second)."""
        command = ["initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = self._spawn([*command, "--locale=C", "--no-sync"], subprocess.PIPE)
        output, _ = done.communicate(timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {output.decode(errors='replace')[-2000:]}")

    def start(self) -> None:
        command = ["postgres", "-D", str(self._data), "-p", str(self.port), "-k", str(self._folder)]
        for name, value in _SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = self._spawn(command, log.fileno())
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self._folder / "postgres.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"postgres did not start: {log_text}") from error
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all sessions and shuts down in order; SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._spawner.shutdown()

    def execute(self, statement: sql.Composed | sql.SQL, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement)

    def program(self, name: str) -> Path:
        """A client program of the same installation, e.g. `pg_dump`."""
        return self._binaries / name

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A database of its own, copied from `template`; its URL."""
        name = f"test_{secrets.token_hex(6)}"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _spawn(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        # postgres refuses to run as root.
        account = self._account
        return self._spawner.submit(
            subprocess.Popen[bytes],
            [str(self._binaries / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(self._folder)},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=_die_with_parent,
        ).result()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Starts a server in a folder of its own; skips, saying why, where it can't be had."""
    binaries = _binaries()
    account = _unprivileged() if os.geteuid() == 0 else None
    # Not pytest's tmp_path: that is closed to other users, and its length may exceed that of a socket's path.
    folder = Path(tempfile.mkdtemp(prefix="bax-pg-"))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    server = PostgresServer(binaries, folder, account)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)


def _binaries() -> Path:
    """The folder of a PostgreSQL installation, also where Debian keeps it out of PATH."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    candidates += [Path("/usr/local/pgsql/bin"), Path("/opt/homebrew/bin")]
    for folder in candidates:
        if all((folder / program).exists() for program in _PROGRAMS):
            return folder
    pytest.skip("PostgreSQL is not installed (no initdb and postgres): apt-get install postgresql")


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as")


def _die_with_parent() -> None:
    """A test run that is killed leaves no server behind (Linux)."""
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
