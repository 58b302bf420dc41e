"""A load generator: keep-alive connections that each send the same request again as soon as it is answered.

Ours, so that the benchmark needs no package of the system; on a core of its own it makes many times the requests that
any server here answers (see the row of the bare ASGI application).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """Answers per second over all connections, and the median time of one, ms."""

    per_sec: float
    median_ms: float


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    lines = {"host": "127.0.0.1", **headers}
    if body:
        lines["content-length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def first_answer(address: str, request: bytes) -> bytes:
    """The body of one answer. Raise RuntimeError unless it is a 200."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if b" 200 " not in head[:16] or length is None:
        raise RuntimeError(f"unexpected answer: {head!r}")
    body = await reader.readexactly(int(length[1]))
    writer.close()
    return body


async def put_load_on(address: str, request: bytes, *, connections: int, seconds: float) -> Load:
    """Raise RuntimeError if any answer is not a 200 with a length."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Connection(request), host, int(port)))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    for connection in opened:
        connection.send()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    for connection in opened:
        connection.close()
    if fault := next((connection.fault for connection in opened if connection.fault), None):
        raise RuntimeError(fault)
    times = sorted(one for connection in opened for one in connection.times)
    return Load(len(times) / took, times[len(times) // 2] * 1000)


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.times: list[float] = []
        self.fault = ""
        self._request = request
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without being a subclass.
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator or self._transport is None:
            return
        length = _LENGTH.search(head + b"\r\n")
        if b" 200 " not in head[:16] or length is None:
            self.fault = f"unexpected answer: {head!r}"
            self.close()
        elif len(rest) >= int(length[1]):
            self.times.append(time.perf_counter() - self._sent_at)
            self._buffer = b""
            self.send()
