"""What a database failure means to the caller: passing, or a defect."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server.errors import Code, ServiceError

_log = logging.getLogger(__name__)

RETRY_AFTER_SEC = 1

# Serialization failure, deadlock, shutdown and restart of the server, lock and connection limits, disk full.
_PASSING_STATES = frozenset(
    {"40001", "40P01", "57P01", "57P02", "57P03", "53300", "55P03", "53100", "57014", "25P03"}
)
# A statement or transaction that used up its time would use it up again.
_NOT_WORTH_RETRYING = frozenset({"57014", "25P03", "53100"})
_PASSING_SQLITE = ("locked", "busy", "disk is full", "disk i/o error", "unable to open database file")


class DatabaseUnavailable(ServiceError):
    """The transaction did not happen (or, if `in_commit`, may or may not have); the caller may try again.

    `retryable` says that running the same transaction again at once makes sense.
    """

    def __init__(self, message: str, *, retryable: bool, in_commit: bool = False) -> None:
        super().__init__(Code.UNAVAILABLE, message, retry_after_sec=RETRY_AFTER_SEC)
        self.retryable = retryable
        self.in_commit = in_commit


def translate(error: Exception, *, in_commit: bool = False) -> DatabaseUnavailable | None:
    """What to raise instead of a passing fault; None for anything else."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("the database is busy", retryable=False)
    if isinstance(error, DBAPIError):
        state = sqlstate(error)
        if state in _PASSING_STATES or state.startswith("08"):
            lost = error.connection_invalidated and in_commit
            return DatabaseUnavailable(
                "the database is unavailable", retryable=state not in _NOT_WORTH_RETRYING, in_commit=lost
            )
        if error.connection_invalidated or is_refused_connection(error):
            return DatabaseUnavailable("the database is unavailable", retryable=True, in_commit=in_commit)
        if any(words in str(error.orig).lower() for words in _PASSING_SQLITE):
            # "disk I/O error" has some thirty causes, which only this name tells apart.
            _log.warning("SQLite: %s (%s)", error.orig, getattr(error.orig, "sqlite_errorname", "?"))
            return DatabaseUnavailable("the database is unavailable", retryable="full" not in str(error.orig))
    return None


def is_spent_connection(error: Exception) -> bool:
    """SQLite could not read, lock or map its files: often that lasts for as long as the connection is open."""
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's five characters, empty on SQLite and for failures before the server answered."""
    return getattr(error.orig, "sqlstate", None) or ""


def is_refused_connection(error: DBAPIError) -> bool:
    """No connection could be made at all, e.g. while the server restarts."""
    return type(error.orig).__module__.startswith("psycopg") and type(error.orig).__name__ in {
        "OperationalError",
        "ConnectionTimeout",
        "InterfaceError",
    }
