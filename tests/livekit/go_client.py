"""The Go program of `go/`, built once per machine: LiveKit's own Go clients, and the Go stubs of `generated/`."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.livekit.install import InstallError, Tools, find_go
from tools.generate_stubs import cache_folder

_SOURCES = Path(__file__).with_name("go")
_STUBS = Path(__file__).resolve().parents[2] / "generated" / "go"
_STUBS_MODULE = "github.com/baxcloud/baxcloud/generated/go/..."
# What is compiled runs for a second: optimising 500 packages would take more than twice as long as not to.
_FLAGS = ("-mod=readonly", "-buildvcs=false", "-gcflags=all=-N -l")
_COMMAND_TIMEOUT_SEC = 900
_RUN_TIMEOUT_SEC = 60
# Said by Go where nobody answers that has modules, or the way there is barred, for which the sources are not to blame.
_UNREACHABLE = re.compile(
    r'(?:Get|Head|Post) "https?://[^"]+": '
    r"(?:dial tcp|proxyconnect tcp|net/http: TLS handshake timeout|read tcp .*i/o timeout|Forbidden$)",
    re.MULTILINE,
)
# Said where there was an answer, which is about what the sources name: an entry that is refused, gone or another one.
_ANSWERED = re.compile(r"reading https?://|SECURITY ERROR|checksum mismatch|missing go\.sum entry")


def built_client() -> Path:
    """The program, built and vetted on first use; skips, saying why, where no Go or no module can be had."""
    folder = cache_folder().parent / "go-clients"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"client-{_fingerprint()}"
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _build(Path(scratch)).replace(program)
    return program


def _fingerprint() -> str:
    """Of everything that is compiled."""
    content = hashlib.sha256()
    for path in _compiled():
        content.update(f"{path.name}\0".encode() + path.read_bytes())
    return content.hexdigest()[:16]


def _compiled() -> Iterator[Path]:
    for folder in (_SOURCES, _STUBS):
        yield from sorted(path for path in folder.rglob("*") if path.suffix in (".go", ".mod", ".sum"))


def _build(folder: Path) -> Path:
    try:
        go, environment = find_go(Tools.found(), folder, lambda said: None)
    except InstallError as error:
        pytest.skip(f"no Go can be had: {error}")
    built = folder / "client"
    _run([go, "build", *_FLAGS, "-ldflags=-s -w", "-o", str(built), "."], environment)
    _run([go, "vet", *_FLAGS, ".", _STUBS_MODULE], environment)
    return built


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=_SOURCES,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_SEC,
        check=False,
    )
    if done.returncode != 0 and is_unreachable(done.stderr):
        pytest.skip(f"the modules of LiveKit's Go clients cannot be fetched: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, f"go {command[1]}: {done.stderr[-4000:]}"


def is_unreachable(said: str) -> bool:
    """Whether Go could not fetch modules at all, by what it said; one that it could not have is a fault of the sources."""
    return bool(_UNREACHABLE.search(said)) and not _ANSWERED.search(said)


async def answers(program: Path, *arguments: str) -> list[Any]:
    """What it printed: pairs of a call's name and its answer."""
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_RUN_TIMEOUT_SEC):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    told: list[Any] = json.loads(out)
    return told
