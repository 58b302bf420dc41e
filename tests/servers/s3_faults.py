"""A proxy in front of an S3 server that answers chosen requests wrongly, late or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.servers.loopback import closed, loopback, opened


@dataclass
class Fault:
    """What happens to the next `times` requests whose `METHOD target` line contains `match`.

    `reply` is sent instead of asking the server; without it the request is `hang`-ing, or with `lose` it is carried
    out and its answer lost, with `late` carried out once `FaultProxy.released` is set, with `cut` its answer breaks off
    after so many bytes. `skip` lets that many matching requests pass first.
    """

    match: str
    times: int = 1
    reply: bytes | None = None
    hang: bool = False
    lose: bool = False
    late: bool = False
    cut: int | None = None
    skip: int = 0


def error(status: int, code: str, *, headers: str = "") -> bytes:
    """An S3 error answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class FaultProxy:
    """`requests` are the `METHOD target` lines seen; `hanging` is set while a request is held.

    `keeps_host` leaves the name that was signed, for servers that check signatures. One byte of the next `flips` bodies
    that are put arrives changed.
    """

    upstream: str
    keeps_host: bool = False
    flips: int = 0
    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            await closed(writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        line = lines[0].rsplit(" ", 1)[0]
        self.requests.append(line)
        self.hosts.append(headers["host"])
        fault = self._fault(line)
        if fault and fault.hang:
            self.hanging.set()
            await self.released.wait()
            return False
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if fault and fault.reply is not None:
            writer.write(fault.reply)
            await writer.drain()
            return b"Connection: close" not in fault.reply
        if fault and fault.late:
            self.hanging.set()
            await self.released.wait()
        answer = await self._forward(head, body)
        if fault and fault.lose:
            return False
        writer.write(answer[: fault.cut] if fault else answer)
        await writer.drain()
        return False

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in line and fault.times:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        if body and self.flips and head.startswith(b"PUT"):
            self.flips -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        parts = urlsplit(self.upstream)
        dropped = (b"connection:", b"expect:") if self.keeps_host else (b"connection:", b"expect:", b"host:")
        reader, writer = await opened(parts.hostname, parts.port)
        kept = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(dropped)]
        kept += [] if self.keeps_host else [b"Host: " + parts.netloc.encode()]
        kept += [b"Connection: close"]
        try:
            writer.write(b"\r\n".join([*kept, b"", b""]) + body)
            await writer.drain()
            return await reader.read()
        finally:
            await closed(writer)


@contextlib.asynccontextmanager
async def fault_proxy(upstream: str, *, keeps_host: bool = False) -> AsyncIterator[FaultProxy]:
    """Listens on a free port until the block ends."""
    proxy = FaultProxy(upstream, keeps_host=keeps_host)
    async with loopback(proxy.serve) as port:
        proxy.endpoint = f"http://127.0.0.1:{port}"
        try:
            yield proxy
        finally:
            proxy.released.set()
