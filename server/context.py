"""What a call carries besides its message: who calls, for which project, until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from server.errors import permission_denied
from server.ids import ProjectId


class CallerKind(str, Enum):
    API_KEY = "api_key"
    ADMIN = "admin"
    LIVEKIT = "livekit"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `project_id` is None only for the admin token without `X-Project-Id`."""

    kind: CallerKind
    project_id: ProjectId | None
    key_id: str | None = None
    baxstream: bool = False


@dataclass(slots=True)
class ReplyNotes:
    """What a service tells of its reply beside it. `existing`: nothing was created, for it was there already; REST then
    answers 200 where it would have said 201.
    """

    existing: bool = False


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature over a REST request covers: its method, its path with the query as sent, and its raw body."""

    verb: str
    url: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call on its way through dispatch; services read it, transports build it.

    `headers` are lower-case request headers or gRPC metadata, kept out of `repr` because they hold credentials.
    `deadline` is the moment after which nobody waits for the answer. `idempotency_key` is the caller's, on methods that
    create something.
    """

    method: str
    transport: str
    request_id: str
    caller: Caller
    headers: Mapping[str, str] = field(repr=False)
    deadline: datetime | None = None
    idempotency_key: str | None = None
    notes: ReplyNotes = field(default_factory=ReplyNotes)

    @property
    def project_id(self) -> ProjectId:
        """The project this call acts in; every repository look-up is scoped by it."""
        if self.caller.project_id is None:
            raise permission_denied("this call needs a project: use an API key or send X-Project-Id")
        return self.caller.project_id
