"""aiohttp sessions that can only reach what the address guard permits."""

from __future__ import annotations

import functools
import socket
import ssl
from ipaddress import ip_address
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult

from adapters.http.netguard import AddressRefused, NetGuard, Purpose


class ConnectionBroken(aiohttp.ClientConnectionError):
    """The connection was there and ended before the answer."""


def guarded_session(
    guard: NetGuard,
    purpose: Purpose,
    *,
    connect_timeout_sec: float,
    tls: ssl.SSLContext | None = None,
    keepalive_timeout_sec: float = 15.0,
    read_buffer: int = 64 * 1024,
) -> aiohttp.ClientSession:
    """A session without proxies from the environment, cookies, DNS cache or an upper number of connections.

    The resolver hands out vetted addresses only, and the socket factory checks again what is really dialled:
    aiohttp skips the resolver for literal addresses (aio-libs/aiohttp discussion 10224). Redirects are the
    caller's: pass `allow_redirects=False`. One call is one request.
    """

    def checked_socket(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        if not guard.permits(ip_address(sockaddr[0]), purpose):
            raise AddressRefused
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(
        resolver=_GuardedResolver(guard, purpose),
        socket_factory=checked_socket,
        use_dns_cache=False,
        limit=0,
        ssl=tls or _default_tls(),
        keepalive_timeout=keepalive_timeout_sec,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_sec),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        middlewares=(_send_once,),
        read_bufsize=read_buffer,
    )


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """The system's authorities and certifi's: slim containers lack the first, the second has no private ones."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp quietly repeats a GET whose connection broke; our callers count their tries (B-65)."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionBroken("the connection broke") from error


class _GuardedResolver(AbstractResolver):
    def __init__(self, guard: NetGuard, purpose: Purpose) -> None:
        self._guard = guard
        self._purpose = purpose

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [ip_address(text) for text in await self._guard.addresses(host, self._purpose)]
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
            if family in (socket.AF_UNSPEC, socket.AF_INET6 if address.version == 6 else socket.AF_INET)
        ]

    async def close(self) -> None:
        """Nothing is held."""
