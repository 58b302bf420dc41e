"""A web proxy as offices have it: CONNECT for what is encrypted, forwarding for the rest, with a login if wanted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from tests.servers.loopback import closed, loopback, opened

_STREAM = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_LOGIN_WANTED = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"
    b"Content-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>"
)


@dataclass
class WebProxy:
    """`requests` are the `METHOD target` lines it was asked for, `heads` and `bodies` what it forwarded.

    `names` is its own knowledge of hosts; `login` is `user:password`, "" for none. `closed` answers everything with
    that status.
    """

    login: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    closed: int = 0
    port: int = 0
    requests: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange((reader, writer)):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            await closed(writer)

    async def _exchange(self, near: _STREAM) -> bool:
        """Whether there may be another request on this connection."""
        reader, writer = near
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        method, target, _ = lines[0].split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines[1:])}
        self.requests.append(f"{method} {target}")
        expected = base64.b64encode(self.login.encode()).decode()
        if self.login and fields.get("proxy-authorization") != f"Basic {expected}":
            writer.write(_LOGIN_WANTED)
            await writer.drain()
            return False
        if self.closed:
            writer.write(
                f"HTTP/1.1 {self.closed} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
            return False
        if method == "CONNECT":
            far = await self._open(urlsplit(f"//{target}"))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _both_ways(near, far)
            return False
        self.heads.append(head)
        if fields.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        self.bodies.append(body)
        parts = urlsplit(target)
        dropped = ("proxy-authorization:", "connection:", "expect:")
        kept = [line for line in lines[1:] if line and not line.lower().startswith(dropped)]
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(await self._answer(parts, [f"{method} {path} HTTP/1.1", *kept], body))
        await writer.drain()
        return False

    async def _answer(self, parts: SplitResult, lines: Sequence[str], body: bytes) -> bytes:
        reader, writer = await self._open(parts)
        try:
            writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
            await writer.drain()
            return await reader.read()
        finally:
            await closed(writer)

    async def _open(self, parts: SplitResult) -> _STREAM:
        host, port = parts.hostname or "", parts.port or 80
        return await opened(self.names.get(host, host), port)


async def _both_ways(one: _STREAM, other: _STREAM) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await reader.read(1 << 16):
                writer.write(block)
                await writer.drain()

    ways = [asyncio.create_task(pass_on(one[0], other[1])), asyncio.create_task(pass_on(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # At once: what waits may be cancelled in its turn.
        other[1].close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await closed(other[1])


@contextlib.asynccontextmanager
async def web_proxy(proxy: WebProxy, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebProxy]:
    """Listens on a free port of loopback until the block ends; with `tls` it is an `https://` proxy."""
    async with loopback(proxy.attend, tls) as proxy.port:
        yield proxy
