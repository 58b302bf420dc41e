"""A screen that nobody sees: Xvfb, open to this process only."""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.web.programs import Programs, end, environment, start

_START_SEC = 10.0
_COOKIE = b"MIT-MAGIC-COOKIE-1"
_FAMILY_WILD = 0xFFFF


@asynccontextmanager
async def opened_display(
    programs: Programs, folder: Path, width: int, height: int
) -> AsyncIterator[dict[str, str]]:
    """The environment that leads to it, `DISPLAY` and `XAUTHORITY`. Raise TimeoutError when it does not start."""
    authority = folder / "xauthority"
    authority.touch(mode=0o600)
    authority.write_bytes(_entry(secrets.token_bytes(16)))
    reader, writer = os.pipe()
    try:
        process = await start(
            [
                programs.display, "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24",
                "-auth", str(authority), "-nolisten", "tcp", "-nocursor", "-dpi", "96",
            ],
            environment(folder, {}),
            pass_fds=(writer,),
        )  # fmt: skip
    finally:
        os.close(writer)
    try:
        # It picks a free number itself and says which, once it answers.
        async with asyncio.timeout(_START_SEC):
            number = await asyncio.to_thread(_number, reader)
        yield {"DISPLAY": f":{number}", "XAUTHORITY": str(authority)}
    finally:
        await end(process)


def _number(reader: int) -> int:
    with os.fdopen(reader, "rb") as pipe:
        line = pipe.readline()
    if not line.strip().isdigit():
        raise OSError("the display did not start")
    return int(line)


def _entry(cookie: bytes) -> bytes:
    """One line of an Xauthority file, good for any host and display: its number is not known yet."""

    def counted(value: bytes) -> bytes:
        return struct.pack(">H", len(value)) + value

    return struct.pack(">H", _FAMILY_WILD) + counted(b"") + counted(b"") + counted(_COOKIE) + counted(cookie)
