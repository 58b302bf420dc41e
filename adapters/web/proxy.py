"""The way out for the browser: a proxy on loopback that connects to permitted addresses only (design section 13).

Redirects, frames, scripts and websockets of a page all come through here, so each is judged on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from adapters.http.netguard import AddressRefused, NetGuard, Purpose

_MAX_HEAD = 64 * 1024
_BLOCK = 64 * 1024
_HEAD_SEC = 10.0
_CONNECT_SEC = 10.0


@dataclass(frozen=True, slots=True)
class TrustedHost:
    """Reachable whatever its address: the LiveKit that a template page joins."""

    host: str
    port: int


@asynccontextmanager
async def opened_proxy(guard: NetGuard, trusted: TrustedHost | None) -> AsyncIterator[str]:
    """Its `host:port` on loopback."""
    door = _Door(guard, trusted)
    server = await asyncio.start_server(door.attend, "127.0.0.1", 0, limit=_MAX_HEAD)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.close()
        await door.close()


class _Door:
    def __init__(self, guard: NetGuard, trusted: TrustedHost | None) -> None:
        self._guard = guard
        self._trusted = trusted
        self._visits: set[asyncio.Task[None]] = set()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        try:
            await self._serve(reader, writer)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            with suppress(OSError):
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        finally:
            self._visits.discard(visit)
            writer.close()

    async def close(self) -> None:
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SEC):
            head = await reader.readuntil(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ")
        if method == "CONNECT":
            parts = urlsplit(f"//{target}")
            opening = b""
        else:
            parts = urlsplit(target)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            # One request a connection: the next one could be for another host.
            kept = [
                field
                for field in fields.split(b"\r\n")
                if field and not field.lower().startswith((b"proxy-", b"connection:"))
            ]
            connection = b"Upgrade" if b"\r\nupgrade:" in head.lower() else b"close"
            opening = b"\r\n".join(
                [
                    f"{method} {path} {version}".encode("latin-1"),
                    *kept,
                    b"Connection: " + connection,
                    b"",
                    b"",
                ]
            )
        if not parts.hostname:
            raise ValueError("no host")
        far_reader, far_writer = await self._connect(parts.hostname, parts.port or 80)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                far_writer.write(opening)
            await _both_ways((reader, writer), (far_reader, far_writer))
        finally:
            far_writer.close()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        trusted = self._trusted is not None and (host, port) == (self._trusted.host, self._trusted.port)
        addresses = await self._guard.addresses(host, Purpose.INPUT, trusted=trusted)
        for address in addresses:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SEC):
                    return await asyncio.open_connection(address, port)
        raise AddressRefused


async def _both_ways(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Until either side has ended."""
    ways = [asyncio.create_task(_pass_on(one[0], other[1])), asyncio.create_task(_pass_on(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK):
        writer.write(block)
        await writer.drain()
