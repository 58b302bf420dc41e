"""`bax` on a data directory of the test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from tests.media import Clip, ClipFactory
from tests.servers.bax import run_bax


class Bax(Protocol):
    def __call__(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Runs `bax`; `settings` without `BAX_`."""
        ...


@pytest.fixture
def bax(data_dir: Path, tmp_path: Path) -> Bax:
    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        named = {f"BAX_{name.upper()}": value for name, value in settings.items()}
        return run_bax(*arguments, env={"BAX_DATA_DIR": str(data_dir), **named}, folder=tmp_path)

    return run


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ClipFactory(tmp_path_factory.mktemp("clips")).clip(Clip(seconds=3))
