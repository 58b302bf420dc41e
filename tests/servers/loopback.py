"""Listens on loopback for servers of the tests that speak for themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def loopback(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """On a free port, which it gives, until the block ends; who is still served then is cut off."""
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    over = False

    # No coroutine: a task that is cancelled before it begins would leave its connection to nobody.
    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if over:
            writer.transport.abort()
            return
        task = asyncio.create_task(attend(reader, writer))
        served[task] = writer
        task.add_done_callback(served.pop)

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await serve(reader, writer)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        over = True
        listener.close()
        left = dict(served)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in left.values():
            # Whoever had begun has closed it.
            if not writer.is_closing():
                await closed(writer)


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody else gets; connections are refused, unless somebody listens there with SO_REUSEADDR."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


async def opened(host: str | None, port: int | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`, but who is cancelled meanwhile leaves nothing open."""
    opening = asyncio.create_task(asyncio.open_connection(host, port))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            _, writer = await opening
            await closed(writer)
        raise


async def closed(writer: asyncio.StreamWriter) -> None:
    """Waits a moment, or the socket would outlive the loop."""
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                await writer.wait_closed()
    finally:
        writer.transport.abort()
