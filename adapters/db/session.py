"""How repositories reach a database: small synchronous pieces of work, each run in one go off the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable, Row

T = TypeVar("T")
AnyRow: TypeAlias = Row[*tuple[Any, ...]]
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Session(Protocol):
    """Runs work on a connection. In a write session all of it is one transaction."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Calls `work` with a SQLAlchemy connection, outside the event loop's own stack. Raise DatabaseUnavailable.

        On a read session `work` may be called again on a fresh connection, so it must only read.
        """
        ...


class WriteSession(Session, Protocol):
    async def commit(self) -> None: ...


class Backend(Protocol):
    """One database: a session for reads, shared by all, and sessions that write."""

    @property
    def dialect(self) -> str: ...

    @property
    def reads(self) -> Session: ...

    def write(self) -> AbstractAsyncContextManager[WriteSession]: ...
    async def close(self) -> None: ...


async def fetch_all(
    session: Session, statement: Executable, parameters: Parameters | None = None
) -> Sequence[AnyRow]:
    return await session.run(lambda connection: connection.execute(statement, parameters).all())


async def fetch_first(
    session: Session, statement: Executable, parameters: Parameters | None = None
) -> AnyRow | None:
    return await session.run(lambda connection: connection.execute(statement, parameters).first())


async def execute(session: Session, statement: Executable, parameters: Parameters | None = None) -> int:
    """Number of rows that an UPDATE or DELETE changed; an INSERT does not say."""
    return await session.run(lambda connection: connection.execute(statement, parameters).rowcount)
