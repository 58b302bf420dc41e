"""Run as a process of its own by the tests: starts an endless encode and says which FFmpeg it runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from adapters.ffmpeg.process import Files, Limits, run_guarded


async def main(binary: str, folder: Path) -> None:
    async def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    await run_guarded(lambda _fds: (binary,), cwd=folder, files=Files(), limits=Limits(), on_stdout=tell)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
