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
