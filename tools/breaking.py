"""Run `buf breaking` against the protos of the main branch, or say why there is nothing to compare with."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASES = ("origin/main", "main")
FILES = ("protos", "third_party", "buf.yaml")


def main() -> int:
    base = _base()
    if base is None:
        print("breaking: SKIPPED, no git commit of main holds protos/ to compare with", file=sys.stderr)
        return 0
    buf = Path(sys.executable).parent / "buf"
    with tempfile.TemporaryDirectory(prefix="bax-breaking-") as folder:
        archive = subprocess.run(["git", "archive", base, *FILES], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        print(f"breaking: comparing with {base}", flush=True)
        return subprocess.run([buf, "breaking", "--against", folder], cwd=ROOT, check=False).returncode


def _base() -> str | None:
    """The commit to compare with: where this branch left main, so that main's own progress is no break."""
    for branch in BASES:
        point = _git("merge-base", "HEAD", branch)
        if point and all(_git("cat-file", "-t", f"{point}:{name}") for name in FILES):
            return point
    return None


def _git(*arguments: str) -> str:
    """What git prints, or nothing if it is absent, fails or this is no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    raise SystemExit(main())
