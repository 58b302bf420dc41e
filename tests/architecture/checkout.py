"""Where the sources are, and which of them git tracks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "adapters", "tools", "benchmarks", "tests")


def modules(*packages: str) -> Iterator[Path]:
    """Python files below the packages, relative to the checkout, sorted."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT)


def tracked_files() -> list[Path]:
    """Files that git tracks, relative to the checkout; skips the test outside a git checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, or no git on this machine")
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
