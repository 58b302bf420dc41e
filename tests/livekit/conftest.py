"""One livekit-server for all tests of LiveKit's own API, and our server in front of it for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.unit_of_work import SqlDatabase, open_database
from tests.livekit.stage import LiveKitStage, livekit_stage
from tests.servers.livekit import LiveKitServer, livekit_server


@pytest.fixture(scope="session")
def livekit_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    with livekit_server(tmp_path_factory.mktemp("livekit")) as server:
        yield server


@pytest.fixture
async def sqlite_database(_migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    path = tmp_path / "livekit.db"
    shutil.copyfile(_migrated_sqlite, path)
    database = await open_database(f"sqlite:///{path}", AesGcmSecretBox.parse(new_key_text()), migrated=True)
    yield database
    await database.close()


@pytest.fixture
async def stage(sqlite_database: SqlDatabase, livekit_behind: LiveKitServer) -> AsyncIterator[LiveKitStage]:
    async with livekit_stage(sqlite_database, livekit_behind.address) as ready:
        yield ready
