"""The surface under test, on SQLite: what is tested here does not depend on the kind of database."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.unit_of_work import SqlDatabase, open_database
from tests.transport.egress_stage import EgressStage, egress_stage
from tests.transport.surface import Surface, running_surface


@pytest.fixture
async def sqlite_database(_migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    path = tmp_path / "transport.db"
    shutil.copyfile(_migrated_sqlite, path)
    database = await open_database(f"sqlite:///{path}", AesGcmSecretBox.parse(new_key_text()), migrated=True)
    yield database
    await database.close()


@pytest.fixture
async def surface(sqlite_database: SqlDatabase) -> AsyncIterator[Surface]:
    async with running_surface(sqlite_database) as running:
        yield running


@pytest.fixture
async def egress(sqlite_database: SqlDatabase, tmp_path: Path) -> AsyncIterator[EgressStage]:
    async with egress_stage(sqlite_database, tmp_path) as stage:
        yield stage
