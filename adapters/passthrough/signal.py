"""LiveKit's signalling as a recorder needs it: join, choose tracks, answer offers (protocol 16, `/rtc`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from livekit.protocol.rtc import JoinResponse, SignalRequest, SignalResponse

_PROTOCOL = "16"
_JOIN_SEC = 10.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class JoinRefused(Exception):
    """LiveKit does not let us in; `status` is HTTP's, 0 when it can't be reached at all."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class SignalLost(Exception):
    """The signal connection broke without a word."""


class Signal:
    """One signal connection. It keeps itself alive, and notices when LiveKit no longer answers."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket
        self._pinging: asyncio.Task[None] | None = None
        self._ping_timeout = 15.0

    @classmethod
    @contextlib.asynccontextmanager
    async def join(cls, url: str, token: str) -> AsyncIterator[tuple[Signal, JoinResponse]]:
        """Raise JoinRefused, also when no answer comes within 10 s."""
        session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(_JOIN_SEC):
                socket = await session.ws_connect(
                    _rtc_url(url),
                    params={"auto_subscribe": "0", "protocol": _PROTOCOL, "sdk": "python"},
                    headers={"Authorization": f"Bearer {token}"},
                    max_msg_size=_MAX_MESSAGE_BYTES,
                )
                signal = cls(session, socket)
                greeting = await signal._greeting()
        except aiohttp.WSServerHandshakeError as error:
            await session.close()
            raise JoinRefused(
                error.status, f"LiveKit refused to let the recorder in ({error.status})"
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError, SignalLost):
            await session.close()
            raise JoinRefused(0, "LiveKit cannot be reached") from None
        try:
            signal._keep_alive(greeting)
            yield signal, greeting
        finally:
            await signal._close()

    async def send(self, request: SignalRequest) -> None:
        """Does nothing once the connection is gone: `messages` tells that."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.send_bytes(request.SerializeToString())

    async def messages(self) -> AsyncIterator[SignalResponse]:
        """Raise SignalLost when nothing comes any more."""
        from livekit.protocol.rtc import SignalResponse

        while True:
            try:
                message = await self._socket.receive(self._ping_timeout)
            except TimeoutError:
                raise SignalLost from None
            if message.type is aiohttp.WSMsgType.BINARY:
                yield SignalResponse.FromString(message.data)
            elif message.type is not aiohttp.WSMsgType.TEXT:
                raise SignalLost

    async def _greeting(self) -> JoinResponse:
        async for message in self.messages():
            if message.WhichOneof("message") == "join":
                return message.join
            break
        raise SignalLost

    def _keep_alive(self, greeting: JoinResponse) -> None:
        self._ping_timeout = float(greeting.ping_timeout or 15)
        self._pinging = asyncio.create_task(self._ping(float(greeting.ping_interval or 5)))

    async def _ping(self, every: float) -> None:
        from livekit.protocol.rtc import Ping, SignalRequest

        while True:
            await asyncio.sleep(every)
            await self.send(SignalRequest(ping_req=Ping()))

    async def _close(self) -> None:
        from livekit.protocol.models import DisconnectReason
        from livekit.protocol.rtc import LeaveRequest, SignalRequest

        if self._pinging is not None:
            self._pinging.cancel()
            await asyncio.gather(self._pinging, return_exceptions=True)
        if not self._socket.closed:
            await self.send(SignalRequest(leave=LeaveRequest(reason=DisconnectReason.CLIENT_INITIATED)))
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await asyncio.wait_for(self._socket.close(), 1)
        await self._session.close()


def _rtc_url(url: str) -> str:
    return (
        url.replace("ws", "http", 1).rstrip("/") + "/rtc"
        if url.startswith("ws")
        else url.rstrip("/") + "/rtc"
    )
