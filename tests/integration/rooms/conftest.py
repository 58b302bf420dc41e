"""One livekit-server for all tests of rooms, and a database with both projects for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.unit_of_work import SqlDatabase, open_database
from server.ports.livekit import LiveKitAddress
from tests.conftest import Eventually
from tests.integration.rooms.stage import RoomStage, room_stage
from tests.servers.livekit import livekit_server
from tests.servers.loopback import held_port


@pytest.fixture(scope="session")
def hook_port() -> Iterator[int]:
    """Where LiveKit sends its webhooks; each test listens there when it wants to, and nobody else does meanwhile."""
    with held_port() as port:
        yield port


@pytest.fixture(scope="session")
def livekit(tmp_path_factory: pytest.TempPathFactory, hook_port: int) -> Iterator[LiveKitAddress]:
    with livekit_server(
        tmp_path_factory.mktemp("livekit"), f"http://127.0.0.1:{hook_port}/livekit/webhook"
    ) as server:
        yield server.address


@pytest.fixture
async def sqlite_database(_migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    path = tmp_path / "rooms.db"
    shutil.copyfile(_migrated_sqlite, path)
    database = await open_database(f"sqlite:///{path}", AesGcmSecretBox.parse(new_key_text()), migrated=True)
    yield database
    await database.close()


@pytest.fixture
async def stage(
    sqlite_database: SqlDatabase, livekit: LiveKitAddress, hook_port: int, eventually: Eventually
) -> AsyncIterator[RoomStage]:
    async with room_stage(sqlite_database, livekit, hook_port, eventually) as ready:
        yield ready
