"""Fixtures of the fault tests; after each one nothing may be left running, open or on disk."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.descriptors import descriptors
from tests.faults.disks import small_file_system
from tests.faults.processes import below
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server
from tests.servers.s3_faults import FaultProxy, fault_proxy

# What session-wide servers and lazily loaded libraries may keep open.
_OPEN_FILES_SLACK = 24


@pytest.fixture(autouse=True)
async def nothing_is_left(tmp_path: Path, eventually: Eventually) -> AsyncIterator[None]:
    """Issue section 8, case 45: no media process, no work file, no half upload, no task."""
    yield

    def clean() -> bool:
        media = [process for process in below(os.getpid()) if process.is_media]
        assert not media, f"left running: {media}"
        files = [path for name in ("work", "uploads") for path in tmp_path.glob(f"**/{name}/**/*")]
        files = [path for path in files if path.is_file() and not path.name.endswith(".kept")]
        assert not files, f"left behind: {files}"
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, f"still there: {tasks}"
        return True

    await eventually(clean)


@pytest.fixture(autouse=True, scope="module")
def no_growing_number_of_open_files() -> Iterator[None]:
    before = len(descriptors())
    yield
    gc.collect()
    after = sorted(descriptors())
    assert len(after) <= before + _OPEN_FILES_SLACK, after


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(s3.endpoint) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with small_file_system(tmp_path / "small") as folder:
        yield folder
