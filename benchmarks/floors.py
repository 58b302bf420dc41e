"""The plain applications that ours are compared with, under uvicorn with the same options.

Run as `python -m benchmarks.floors NAME ARGUMENT`; prints `host:port` and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

_WRITE_BYTES = 256 * 1024

Application = Callable[[Any, Any, Any], Awaitable[None]]


def echo(answer: str) -> Application:
    """Answers everything with a JSON body of the same size as ours, and does nothing else."""
    body = b'"' + b"x" * (int(answer) - 2) + b'"'

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def to_disk(folder: str) -> Application:
    """Writes the request's body to a file, makes it durable, and removes it after the answer.

    In pieces and in a thread, as ours: written in the event loop as it comes, it takes longer.
    """
    target = Path(folder) / "body"

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        with target.open("wb", buffering=0) as file:
            more = True
            while more:
                pieces, size = [], 0
                while more and size < _WRITE_BYTES:
                    message = await receive()
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    more = message.get("more_body", False)
                await asyncio.to_thread(file.write, b"".join(pieces))
            await asyncio.to_thread(os.fsync, file.fileno())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        target.unlink()

    return app


def plain(database: str) -> Application:
    """The endpoint of `benchmarks.plain_endpoint` on a BaxCloud database file."""
    from benchmarks.plain_endpoint import application

    return application(database)


_APPLICATIONS: dict[str, Callable[[str], Application]] = {"echo": echo, "plain": plain, "to-disk": to_disk}


def main(name: str, argument: str) -> None:
    app = _APPLICATIONS[name](argument)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        host, port = listener.getsockname()
        print(f"{host}:{port}", flush=True)
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
