"""Brings a database's schema to this version, once, whoever else starts at the same time."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, create_engine, text

from adapters.db.sqlite import sqlite_engine
from adapters.db.url import DatabaseUrl

_SCRIPTS = Path(__file__).parent / "migrations"
# Any number that no other program uses for an advisory lock in this database.
_LOCK = 0x6261_7863_6C6F_7564


def migrate(url: str, *, revision: str = "head") -> None:
    """Blocking. All or nothing: one transaction under a lock, which other starters wait for."""
    target = DatabaseUrl.parse(url)
    if target.path is not None:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        engine = sqlite_engine(target.path, begin="BEGIN EXCLUSIVE", foreign_keys=False)
    else:
        engine = create_engine(target.sqlalchemy, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            if target.path is None:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            command.upgrade(alembic_config(connection), revision)
    finally:
        engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic set up to work on `connection`, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
