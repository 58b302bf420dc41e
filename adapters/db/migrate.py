"""Brings a database's schema to this version, once, whoever else starts at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from adapters.db.faults import translate
from adapters.db.sqlite import sqlite_engine
from adapters.db.url import DatabaseUrl

_SCRIPTS = Path(__file__).parent / "migrations"
# Any number that no other program uses for an advisory lock in this database.
_LOCK = 0x6261_7863_6C6F_7564


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """The revision found in a database, None where there are no tables yet, and the one of this code."""

    found: str | None
    newest: str | None

    @property
    def is_current(self) -> bool:
        return self.found == self.newest


def migrate(url: str, *, revision: str = "head") -> None:
    """Blocking. All or nothing: one transaction under a lock, which other starters wait for.

    Raise DatabaseUnavailable when the database cannot be reached.
    """
    target = DatabaseUrl.parse(url)
    if target.path is not None:
        target.path.parent.mkdir(parents=True, exist_ok=True)
    with _engine(target) as engine, engine.begin() as connection:
        if target.path is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        command.upgrade(alembic_config(connection), revision)


def schema_version(url: str) -> SchemaVersion:
    """Blocking. Raise DatabaseUnavailable when the database cannot be reached."""
    with _engine(DatabaseUrl.parse(url)) as engine, engine.connect() as connection:
        newest = ScriptDirectory.from_config(alembic_config(connection)).get_current_head()
        return SchemaVersion(MigrationContext.configure(connection).get_current_revision(), newest)


@contextmanager
def _engine(target: DatabaseUrl) -> Iterator[Engine]:
    if target.path is not None:
        engine = sqlite_engine(target.path, begin="BEGIN EXCLUSIVE", foreign_keys=False)
    else:
        engine = create_engine(target.sqlalchemy, poolclass=NullPool)
    try:
        yield engine
    except DBAPIError as error:
        if (unavailable := translate(error)) is not None:
            raise unavailable from error
        raise
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic set up to work on `connection`, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
