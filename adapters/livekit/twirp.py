"""One HTTP client for LiveKit's Twirp services: bytes out, bytes in, every failure a ServiceError within the deadline."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import certifi

from adapters.livekit.tokens import TokenSigner
from server.clock import Clock, SystemClock
from server.errors import Code, ServiceError, unavailable
from server.ports.livekit import LiveKitAddress

DEFAULT_TIMEOUT_SEC = 5.0
_MAX_CONNECTIONS = 256
_LARGE = 256 * 1024
# Shorter than what proxies in front of a LiveKit grant, so that it is we who close an idle connection.
_KEEPALIVE_SEC = 15.0
_READS = ("List", "Get")
# livekit-surface.md 1.4: LiveKit wraps the errors of its inner calls like this.
_WRAPPING = "twirp error unknown: "


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content_type: str
    body: bytes


class TwirpClient:
    """Calls whatever LiveKit an address names, over kept connections."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._tokens = TokenSigner(clock or SystemClock())
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self,
        address: LiveKitAddress,
        method: str,
        request: bytes,
        *,
        grants: Mapping[str, object],
        sip: Mapping[str, object] | None = None,
        timeout_sec: float | None = None,
    ) -> bytes:
        """As `LiveKitGateway.call`, at this address."""
        limit = DEFAULT_TIMEOUT_SEC if timeout_sec is None else timeout_sec
        headers = {
            "Authorization": f"Bearer {self._tokens.token(address, grants, sip=sip)}",
            "Content-Type": "application/protobuf",
            "X-Twirp-Timeout-Ms": str(max(1, int(limit * 1000))),
        }
        try:
            async with asyncio.timeout(limit):
                answer = await self._post(address, method, request, headers)
        except TimeoutError:
            raise unavailable(f"LiveKit at {address.url} did not answer within {limit:g} s") from None
        if answer.status == 200:
            return answer.body
        raise _error(answer, address, method)

    async def healthy(self, address: LiveKitAddress, *, timeout_sec: float = 2.0) -> str | None:
        """None if LiveKit is ready and takes our key, else what is wrong."""
        try:
            async with (
                asyncio.timeout(timeout_sec),
                self._open().get(address.url + "/", allow_redirects=False) as response,
            ):
                # 406 while its statistics are stale (livekit-surface.md 1.1); other fronts answer as they like.
                if response.status == 406:
                    return "it says that it is not ready"
            # Asks for one room, for a server with many would send them all.
            await self.call(
                address,
                "livekit.RoomService/ListRooms",
                _ONE_ROOM,
                grants={"roomList": True},
                timeout_sec=timeout_sec,
            )
        except TimeoutError:
            return f"it did not answer within {timeout_sec:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return cause_of(error)
        except ServiceError as error:
            return error.message
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(
        self, address: LiveKitAddress, method: str, request: bytes, headers: Mapping[str, str]
    ) -> _Answer:
        # A kept connection may have been closed under us. Only a read may be sent twice: LiveKit may have
        # carried out the first one.
        again = method.rpartition("/")[2].startswith(_READS)
        url = f"{address.url}/twirp/{method}"
        while True:
            try:
                # aiohttp sends bytes in one piece, which holds everybody up when they are many.
                data = io.BytesIO(request) if len(request) > _LARGE else request
                async with self._open().post(
                    url, data=data, headers=headers, allow_redirects=False
                ) as response:
                    return _Answer(
                        response.status, response.headers.get("Content-Type", ""), await response.read()
                    )
            except aiohttp.ClientConnectorError as error:
                raise unavailable(f"LiveKit at {address.url} cannot be reached: {cause_of(error)}") from error
            except (aiohttp.ClientError, OSError) as error:
                if not again:
                    raise unavailable(
                        f"the connection to LiveKit at {address.url} broke: {cause_of(error)}"
                    ) from error
                again = False

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session()
        return self._session


def open_session(*, limit: int = _MAX_CONNECTIONS) -> aiohttp.ClientSession:
    """A session for calls to LiveKit; at most `limit` connections, 0 for any number."""
    tls = ssl.create_default_context()
    # Slim containers have no authorities of their own.
    tls.load_verify_locations(certifi.where())
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEEPALIVE_SEC, ssl=tls),
        # Deadlines are set per call; aiohttp's own 5 minutes would only cost a timer.
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "baxcloud"},
        skip_auto_headers=("Accept", "Accept-Encoding"),
    )


# ListRoomsRequest{names: [" "]}; written out to keep protobuf out of the supervisor.
_ONE_ROOM = b"\n\x01 "


def _error(answer: _Answer, address: LiveKitAddress, method: str) -> ServiceError:
    """Twirp JSON keeps its code; anything else comes from LiveKit's front (livekit-surface.md 1.2) or a proxy."""
    if answer.content_type.partition(";")[0].strip().lower() == "application/json":
        known = _twirp_error(answer.body)
        if known is not None:
            return known
    match answer.status:
        case 401:
            # The body is not repeated: it may quote the token.
            cause = (
                "its API key" if b"invalid API key" in answer.body else "the signature or life of our token"
            )
            return unavailable(
                f"LiveKit at {address.url} refused our key: it does not accept {cause}; "
                "check BAX_LIVEKIT_API_KEY, BAX_LIVEKIT_API_SECRET and both clocks"
            )
        case 404:
            return ServiceError(Code.UNIMPLEMENTED, f"the LiveKit at {address.url} has no {method}")
        case 413:
            return ServiceError(Code.RESOURCE_EXHAUSTED, "the request is too large for LiveKit")
        case status:
            return unavailable(f"LiveKit at {address.url} answered HTTP {status}")


def _twirp_error(body: bytes) -> ServiceError | None:
    try:
        parsed: Any = json.loads(body)
        code = Code({"data_loss": "dataloss"}.get(parsed["code"], parsed["code"]))
        message = str(parsed.get("msg") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    while message.startswith(_WRAPPING):
        message = message.removeprefix(_WRAPPING)
    meta = parsed.get("meta")
    shown = {str(key): str(value) for key, value in meta.items()} if isinstance(meta, dict) else None
    return ServiceError(code, message or f"LiveKit answered {code.value}", meta=shown)


def cause_of(error: BaseException) -> str:
    """What went wrong, without the address that the caller has already named."""
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        # asyncio writes its own text over the system's: `Connect call failed ('127.0.0.1', 7880)`.
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
