"""Raw HTTP servers on loopback that misbehave exactly as told, and a guard to which 127.0.0.2 is the public internet."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from adapters.http.netguard import NetGuard, Purpose, Rule

PUBLIC = "127.0.0.2"
PRIVATE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came over the wire; `number` counts from 0, `headers` has lower-case names."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A complete, honest answer; header names use `_` for `-`."""
        lines = {
            "Content-Length": str(len(body)),
            **{name.replace("_", "-"): v for name, v in headers.items()},
        }
        await self.send(head(status, lines) + body)

    def reset(self) -> None:
        self.writer.transport.abort()


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode()


@dataclass(slots=True)
class Server:
    host: str
    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", *, name: str = "media.test", scheme: str = "http") -> str:
        return f"{scheme}://{name}:{self.port}{path}"


Respond = Callable[[Request], Awaitable[None]]


@asynccontextmanager
async def serve(
    respond: Respond, *, host: str = PUBLIC, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Each connection serves requests until the client or `respond` closes it."""
    tasks: set[asyncio.Task[None]] = set()
    served = Server(host, port)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await _read_request(reader, writer, served)
                await respond(request)
                if writer.is_closing():
                    break

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connection(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda _: writer.close())

    listener = await asyncio.start_server(accept, host, port, ssl=tls, backlog=1024)
    served.port = listener.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        errors = [e for e in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(e, Exception)]
        await listener.wait_closed()
        if errors:
            raise errors[0]


@asynccontextmanager
async def serve_both(public: Respond, private: Respond) -> AsyncIterator[tuple[Server, Server]]:
    """A server on each address, both at the same port."""
    async with AsyncExitStack() as stack:
        while True:
            source = await stack.enter_async_context(serve(public))
            try:
                canary = await stack.enter_async_context(serve(private, host=PRIVATE, port=source.port))
            except OSError as error:
                # What is free at one address may be somebody's at the other.
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            break
        yield source, canary


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, served: Server
) -> Request:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    request = Request(len(served.requests), method, path, headers, body, writer)
    served.requests.append(request)
    return request


class Names:
    """A name server: each name has a list of answers; the last one stays."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {"media.test": [[PUBLIC]], "other.test": [[PUBLIC]], "inside.test": [[PRIVATE]]}
        self._answers |= {name.replace("_", "."): [list(a) for a in given] for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._answers:
            raise OSError("name not known")
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def public_is_loopback_2(names: Names | None = None) -> NetGuard:
    """A closed guard, but for 127.0.0.2: everything else on loopback plays the operator's private network."""
    rule = Rule({"http": None, "https": None}, networks=(IPv4Network(f"{PUBLIC}/32"),))
    return NetGuard(rules={Purpose.INPUT: rule, Purpose.WEBHOOK: rule}, lookup=names or Names())
