"""The forms in which `BAX_DATABASE_URL` may name a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

DATABASE_FILE = "baxcloud.db"
_SQLITE = frozenset({"sqlite", "sqlite+aiosqlite", "sqlite+pysqlite"})
_POSTGRES = frozenset({"postgres", "postgresql", "postgresql+psycopg"})


def default_url(data_dir: Path) -> str:
    """The embedded mode's SQLite file."""
    return f"sqlite:///{data_dir.absolute() / DATABASE_FILE}"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A database, by SQLAlchemy URL; `path` is the file of a SQLite one. `repr` hides the password."""

    sqlalchemy: URL
    path: Path | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`sqlite:///PATH` (or `sqlite+aiosqlite:///`), `postgresql://…`, `postgres://…`; the drivers are ours.

        Raise ValueError for anything else, never repeating the URL, which may hold a password.
        """
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise ValueError("the database URL cannot be read") from None
        if url.drivername in _SQLITE:
            if not url.database or url.database == ":memory:":
                raise ValueError("SQLite needs a file: several connections and processes share it")
            return cls(url.set(drivername="sqlite"), Path(url.database))
        if url.drivername in _POSTGRES:
            return cls(url.set(drivername="postgresql+psycopg"), None)
        raise ValueError(f"unknown kind of database {url.drivername!r}: use sqlite or postgresql")
