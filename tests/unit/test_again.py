"""`make test` asks a few failed tests once more, and which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Fails the first time it runs.
LATE = """
import pathlib

def test_late_{number}():
    seen = pathlib.Path(__file__).with_suffix(".{number}")
    was_here = seen.exists()
    seen.touch()
    assert was_here
"""
WRONG = "def test_wrong(): assert False\n"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("where", "late", "status", "said"),
    [
        (
            "integration",
            3,
            0,
            "failed beside others, passed alone: tests/integration/test_some.py::test_late_0",
        ),
        ("integration", 4, 1, "4 tests failed: too many to ask again"),
        (
            "migrations",
            1,
            1,
            "not asked again, for it depends on no machine: tests/migrations/test_some.py::test_late_0",
        ),
    ],
)
def test_a_few_that_were_late_are_asked_again(
    tmp_path: Path, where: str, late: int, status: int, said: str
) -> None:
    folder = tmp_path / "tests" / where
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_some.py").write_text("".join(LATE.format(number=number) for number in range(late)))
    assert run(tmp_path).returncode == 1
    again = run(tmp_path, "--lf", "-p", "tests.again")
    assert (again.returncode, said in again.stdout) == (status, True), again.stdout + again.stderr


def test_what_fails_alone_as_well_has_failed(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(WRONG)
    assert run(tmp_path).returncode == 1
    assert run(tmp_path, "--lf", "-p", "tests.again").returncode == 1
