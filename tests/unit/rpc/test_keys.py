"""The cache in front of the keys: how long, for whom, and what drops it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.auth.keys import CACHED_FOR_SEC, TOUCHED_EVERY_SEC, KeyDirectory, digest_of
from server.clock import SystemClock
from server.domain.project import ApiKey, Project
from server.ids import ProjectId

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROJECT = ProjectId("cl_a")
SECRET = "bax_secret_0123456789"


class Seconds:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def stored(database: SqlDatabase) -> SqlDatabase:
    async with database.begin() as unit:
        await unit.projects.add(Project(PROJECT, "a", NOW))
        await unit.keys.add_api_key(ApiKey("key_1", PROJECT, "n", digest_of(SECRET), True, NOW))
        await unit.commit()
    return database


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
async def keys(stored: SqlDatabase, seconds: Seconds) -> AsyncIterator[KeyDirectory]:
    directory = KeyDirectory(stored, SystemClock(), monotonic=seconds)
    yield directory
    await directory.aclose()


async def revoke(database: SqlDatabase) -> None:
    async with database.begin() as unit:
        assert await unit.keys.revoke_api_key(PROJECT, "key_1", NOW)
        await unit.commit()


async def last_used(database: SqlDatabase) -> datetime | None:
    async with database.read() as unit:
        (key,) = await unit.keys.list_api_keys(PROJECT)
    return key.last_used_at


async def test_found_by_its_secret_only(keys: KeyDirectory) -> None:
    found = await keys.find(SECRET)
    assert found is not None
    assert found.id == "key_1"
    for wrong in ("", SECRET + "x", SECRET[:-1], digest_of(SECRET), "x" * 10_000, "\ud800"):
        assert await keys.find(wrong) is None


async def test_a_revoked_key_works_for_seconds_at_most(
    keys: KeyDirectory, stored: SqlDatabase, seconds: Seconds
) -> None:
    """Design section 13: within 5 s in other processes."""
    assert await keys.find(SECRET)
    await revoke(stored)
    seconds.now += CACHED_FOR_SEC - 0.01
    assert await keys.find(SECRET)
    seconds.now += 0.02
    assert await keys.find(SECRET) is None


async def test_forgetting_works_at_once(keys: KeyDirectory, stored: SqlDatabase) -> None:
    assert await keys.find(SECRET)
    await revoke(stored)
    keys.forget("key_1")
    assert await keys.find(SECRET) is None


async def test_a_look_up_that_began_before_a_revocation_is_not_cached(
    stored: SqlDatabase, seconds: Seconds
) -> None:
    """It read the key as it was; keeping that would undo `forget`."""

    class Slow:
        """The database, with a revocation between the read and its return."""

        def __init__(self) -> None:
            self.directory: KeyDirectory | None = None

        def begin(self) -> object:
            return stored.begin()

        def read(self) -> object:
            return self

        async def __aenter__(self) -> object:
            return self

        async def __aexit__(self, *_exc: object) -> None:
            if self.directory is not None:
                self.directory.forget("key_1")

        @property
        def keys(self) -> object:
            return self

        async def find_api_key(self, digest: str) -> ApiKey | None:
            async with stored.read() as unit:
                found = await unit.keys.find_api_key(digest)
            if self.directory is not None:
                await revoke(stored)
            return found

    slow = Slow()
    directory = KeyDirectory(slow, SystemClock(), monotonic=seconds)  # type: ignore[arg-type]
    slow.directory = directory
    assert await directory.find(SECRET), "valid when it was read"
    slow.directory = None
    assert await directory.find(SECRET) is None
    await directory.aclose()


async def test_last_use_is_written_once_a_minute(
    keys: KeyDirectory, stored: SqlDatabase, seconds: Seconds
) -> None:
    assert await last_used(stored) is None
    await keys.find(SECRET)
    await keys.aclose()
    first = await last_used(stored)
    assert first is not None
    seconds.now += TOUCHED_EVERY_SEC - 1
    await keys.find(SECRET)
    await keys.aclose()
    assert await last_used(stored) == first
    seconds.now += 2
    await keys.find(SECRET)
    await keys.aclose()
    later = await last_used(stored)
    assert later is not None
    assert later > first
