"""Fixtures for all tests: waiting, a clean environment, and the database on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from psycopg import sql

from adapters.crypto import AesGcmSecretBox, new_key_text
from adapters.db.migrate import migrate
from adapters.db.unit_of_work import SqlDatabase, open_database
from tests.media import ClipFactory
from tests.servers.livekit import LiveKitServer, livekit_server
from tests.servers.postgres import PostgresServer, postgres_server

_TEMPLATE = "migrated_template"

# Shells start background jobs with SIGINT ignored, and children inherit that: Ctrl-C could not be tested there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Eventually(Protocol):
    async def __call__(
        self, condition: Callable[[], Any], *, within: float = 15.0, every: float = 0.02
    ) -> Any:
        """Returns what `condition` (plain or async) returns as soon as that is true; fails after `within` seconds."""
        ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Waits for a condition; `AssertionError` inside the condition means "not yet" too, and is shown at the end."""

    async def wait(condition: Callable[[], Any], *, within: float = 15.0, every: float = 0.02) -> Any:
        deadline = time.monotonic() + within
        while True:
            refusal: AssertionError | None = None
            try:
                value = condition()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
            except AssertionError as error:
                refusal = error
            if time.monotonic() > deadline:
                raise AssertionError(f"not true within {within} s") from refusal
            await asyncio.sleep(every)

    return wait


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in [name for name in os.environ if name.startswith("BAX_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "bax"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's PostgreSQL. Tests that stop it must start it again; it is shared."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def _migrated_postgres(postgres: PostgresServer) -> str:
    postgres.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    migrate(postgres.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "baxcloud.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables, once on each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of this test's own, once on each kind; for tests that start processes."""
    if request.param == "sqlite":
        path = tmp_path / "baxcloud.db"
        shutil.copyfile(request.getfixturevalue("_migrated_sqlite"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("_migrated_postgres")
        with request.getfixturevalue("postgres").database(template) as url:
            yield url


@pytest.fixture
def secret_keys() -> str:
    """As in `BAX_SECRET_KEYS`."""
    return new_key_text()


OpenDatabase = Callable[[], Awaitable[SqlDatabase]]


@pytest.fixture
async def open_again(database_url: str, secret_keys: str) -> AsyncIterator[OpenDatabase]:
    """Opens the test's database once more, as another process would; closed after the test."""
    opened: list[SqlDatabase] = []

    async def open_one() -> SqlDatabase:
        opened.append(await open_database(database_url, AesGcmSecretBox.parse(secret_keys), migrated=True))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def database(open_again: OpenDatabase) -> SqlDatabase:
    """The open database of this test, once on SQLite and once on PostgreSQL."""
    return await open_again()


@pytest.fixture(scope="session")
def livekit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """The session's LiveKit, without webhooks. Tests that stop it must start it again; it is shared."""
    with livekit_server(tmp_path_factory.mktemp("livekit")) as server:
        yield server


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipFactory:
    """Synthesised media, each file made once per process."""
    return ClipFactory(tmp_path_factory.mktemp("clips"))
