"""LiveKit's `/rtc` as a participant reaches it: plain requests and the websocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from yarl import URL

from adapters.livekit.twirp import cause_of, open_session
from server.errors import unavailable
from server.ports.livekit import LiveKitSource, SignalAnswer, SignalConnection, SignalRefused

# LiveKit tries three times itself, for 3, 6 and 9 s.
CONNECT_TIMEOUT_SEC = 20.0
_HEARTBEAT_SEC = 20.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_ABNORMAL = 1011


class AiohttpSignal:
    """Implements `SignalClient` at wherever the source says that LiveKit is at the moment of the call."""

    def __init__(self, source: LiveKitSource) -> None:
        self._source = source
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, query: str, token: str, headers: Mapping[str, str]) -> SignalAnswer:
        """See `SignalClient.get`."""
        url = (await self._source.address()).url
        try:
            async with (
                asyncio.timeout(CONNECT_TIMEOUT_SEC),
                self._open().get(
                    _target(url, path, query), headers=_headers(token, headers), allow_redirects=False
                ) as answer,
            ):
                kind = answer.headers.get("Content-Type", "")
                return SignalAnswer(answer.status, kind, await answer.read())
        except TimeoutError:
            raise unavailable(f"LiveKit at {url} did not answer within {CONNECT_TIMEOUT_SEC:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise unavailable(f"LiveKit at {url} cannot be reached: {cause_of(error)}") from error

    async def connect(
        self, path: str, query: str, token: str, headers: Mapping[str, str]
    ) -> SignalConnection:
        """See `SignalClient.connect`."""
        url = (await self._source.address()).url
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SEC):
                socket = await self._open().ws_connect(
                    _target(url, path, query),
                    headers=_headers(token, headers),
                    heartbeat=_HEARTBEAT_SEC,
                    max_msg_size=_MAX_MESSAGE_BYTES,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refusal(error.status, path, query, token, headers) from None
        except TimeoutError:
            raise unavailable(f"LiveKit at {url} did not answer within {CONNECT_TIMEOUT_SEC:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise unavailable(f"LiveKit at {url} cannot be reached: {cause_of(error)}") from error
        return _Connection(socket)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _refusal(
        self, status: int, path: str, query: str, token: str, headers: Mapping[str, str]
    ) -> SignalRefused:
        # The library drops the body of a refused handshake; LiveKit repeats it for whoever asks why.
        why = await self.get(f"{path}/validate", query, token, headers)
        return SignalRefused(why if why.status == status else SignalAnswer(status, "", b""))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Every participant keeps one.
            self._session = open_session(limit=0)
        return self._session


class _Connection:
    """Implements `SignalConnection`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)

    async def receive(self) -> str | bytes | None:
        message = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        return None

    @property
    def close_code(self) -> int:
        code = self._socket.close_code
        # 1005 and 1006 are no codes that may be sent.
        return _ABNORMAL if code is None or code in (1005, 1006) else code

    async def close(self, code: int) -> None:
        await self._socket.close(code=code)


def _target(url: str, path: str, query: str) -> URL:
    return URL(f"{url}{path}" + (f"?{query}" if query else ""), encoded=True)


def _headers(token: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
