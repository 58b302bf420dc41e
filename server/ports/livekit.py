"""The LiveKit behind this server: where it is, how to call it, how to sign for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LiveKitAddress:
    """`url` is what we call (`http://…`), `public_url` what participants connect to (`ws://…`)."""

    url: str
    public_url: str
    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveKitStatus:
    """What `bax doctor` and `/healthz` show. `problem` is None while it works; `binary` only of the embedded one."""

    embedded: bool
    address: str | None
    version: str | None
    binary: str | None
    problem: str | None


class LiveKitSource(Protocol):
    """The configured LiveKit or the embedded one."""

    async def address(self) -> LiveKitAddress:
        """Raise ServiceError unavailable saying why, and which command helps, while there is none."""
        ...

    async def status(self) -> LiveKitStatus: ...


class LiveKitGateway(Protocol):
    """Calls `livekit.*` services with our own credentials."""

    async def call(
        self,
        method: str,
        request: bytes,
        *,
        grants: Mapping[str, object],
        sip: Mapping[str, object] | None = None,
        timeout_sec: float | None = None,
    ) -> bytes:
        """`method` like `livekit.RoomService/ListRooms`; request and reply are serialised protobuf messages.

        `grants` is the token's `video` claim, e.g. `{"roomList": True}`, `sip` the claim of that name. Raise ServiceError
        with LiveKit's own code and a clean message; `unavailable` within the timeout (default 5 s) when LiveKit cannot be
        reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class SignalAnswer:
    """What LiveKit said over plain HTTP."""

    status: int
    content_type: str
    body: bytes


class SignalRefused(Exception):
    """LiveKit did not let a participant in; `answer` is for the participant."""

    def __init__(self, answer: SignalAnswer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


class SignalConnection(Protocol):
    """One participant's signalling; text and binary messages pass as they are."""

    async def send(self, message: str | bytes) -> None:
        """Raise ConnectionError when it has ended."""
        ...

    async def receive(self) -> str | bytes | None:
        """The next message, None when it has ended."""
        ...

    @property
    def close_code(self) -> int:
        """Why it has ended, as websockets count it."""
        ...

    async def close(self, code: int) -> None: ...


class SignalClient(Protocol):
    """LiveKit's `/rtc`. `path` and `query` are the participant's, the query without its token; `headers` go along.

    Both raise ServiceError unavailable when LiveKit cannot be reached in time.
    """

    async def get(self, path: str, query: str, token: str, headers: Mapping[str, str]) -> SignalAnswer: ...

    async def connect(
        self, path: str, query: str, token: str, headers: Mapping[str, str]
    ) -> SignalConnection:
        """Raise SignalRefused."""
        ...
