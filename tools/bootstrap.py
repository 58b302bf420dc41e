"""Build `.venv` from the lock with nothing but a Python, then fetch the web assets; quick when nothing changed.

Runs on the machine's own Python, so it uses the standard library only. Every downloaded file is checked against
the hashes in `requirements-dev.lock`, the installer (uv) included.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.lock"
MINIMUM = (3, 11)
HELP = """\
setup: this Python has neither `ensurepip` nor `pip`, and no `uv` or `virtualenv` is on PATH.
setup: give it one of them and run `make setup` again, for example
setup:     Debian, Ubuntu:  apt-get install python3-venv
setup:     Fedora:          dnf install python3-pip
setup:     Alpine:          apk add py3-pip
setup: or name another Python:  make setup PYTHON=/path/to/python3.12"""


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Set up the virtual environment of this checkout.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it goes (.venv)")
    parser.add_argument("--force", action="store_true", help="install again even if nothing changed")
    options = parser.parse_args(argv)
    try:
        _check_python()
        _set_up(options.venv.absolute(), force=options.force)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"setup: `{' '.join(map(str, error.cmd[:4]))} …` failed", file=sys.stderr)
        return 1
    return 0


def _check_python() -> None:
    if sys.version_info < MINIMUM:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(f"setup: Python 3.11 or newer is needed, this is {found}")


def _set_up(venv: Path, *, force: bool) -> None:
    python = venv / "bin" / "python"
    stamp = venv / ".baxcloud-setup"
    wanted = _fingerprint()
    if force or not _is_current(stamp, wanted) or not (venv / "bin" / "bax").exists():
        uv = _installer(venv)
        install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
        print("setup: installing the locked packages", flush=True)
        _run([*install, "--require-hashes", "--only-binary", ":all:", "--requirements", LOCK])
        _run([*install, "--no-deps", "--no-build-isolation", "--editable", ROOT])
        stamp.write_text(wanted)
    _run([python, "-m", "tools.web_assets"])


def _fingerprint() -> str:
    """Changes whenever the environment has to be made anew."""
    digest = hashlib.sha256(f"{ROOT}\n{sys.version_info[:2]}\n".encode())
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest() + "\n"


def _is_current(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text() == wanted


def _installer(venv: Path) -> Path:
    """The locked uv inside `venv`, which is made first if need be; each way is tried until one works."""
    python, uv = venv / "bin" / "python", venv / "bin" / "uv"
    if uv.exists() and python.exists() and f"uv {_uv_version()} " in _output([uv, "--version"]) + " ":
        return uv
    wheel = venv / ".uv-requirements.txt"
    ways: tuple[tuple[str, Callable[[], None]], ...] = (
        ("venv", lambda: _with_venv(venv, wheel)),
        ("uv", lambda: _with_uv(venv, wheel)),
        ("virtualenv", lambda: _with_virtualenv(venv, wheel)),
        ("pip", lambda: _with_pip(venv, wheel)),
    )
    for name, way in ways:
        try:
            way()
        except (subprocess.CalledProcessError, FileNotFoundError):
            continue
        if uv.exists():
            print(f"setup: {venv.name} made with {name}", flush=True)
            return uv
    raise SetupError(HELP)


def _with_venv(venv: Path, wheel: Path) -> None:
    # Debian without python3-venv fails here and leaves half an environment; --clear makes the next try clean.
    _run([sys.executable, "-m", "venv", "--clear", venv], quiet=True)
    _write_uv_requirement(wheel)
    _run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", wheel])


def _with_uv(venv: Path, wheel: Path) -> None:
    _run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, venv])
    _write_uv_requirement(wheel)
    _run(
        [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            venv / "bin" / "python",
            "--require-hashes",
            "-r",
            wheel,
        ]
    )


def _with_virtualenv(venv: Path, wheel: Path) -> None:
    _run(["virtualenv", "--quiet", "--clear", "--python", sys.executable, venv])
    _write_uv_requirement(wheel)
    _run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", wheel])


def _with_pip(venv: Path, wheel: Path) -> None:
    """The machine's pip can install into an environment that has none of its own."""
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", venv])
    _write_uv_requirement(wheel)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    _run([*pip, "install", "--quiet", "--require-hashes", "-r", wheel], quiet=True)


def _write_uv_requirement(path: Path) -> None:
    path.write_text("\n".join(_uv_lines()) + "\n")


def _uv_lines() -> Iterator[str]:
    """uv's entry in the lock, with its hashes."""
    inside = False
    for line in LOCK.read_text().splitlines():
        inside = line.startswith("uv==") or (inside and line.startswith("    --hash"))
        if inside:
            yield line


def _uv_version() -> str:
    return next(_uv_lines()).removeprefix("uv==").split()[0]


def _run(command: Sequence[str | Path], *, quiet: bool = False) -> None:
    output = subprocess.DEVNULL if quiet else None
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True
    )


def _output(command: Sequence[str | Path]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    raise SystemExit(main())
