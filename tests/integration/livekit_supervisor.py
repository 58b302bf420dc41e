"""A supervisor in a process of its own, for the tests to kill: `python -m tests.integration.livekit_supervisor FOLDER`.

It prints the address once LiveKit answers; SIGTERM is a clean stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from adapters.crypto import AesGcmSecretBox, load_or_create_keys
from adapters.livekit.embedded import EmbeddedLiveKit
from adapters.livekit.options import EmbeddedOptions
from server.observability.logging import configure_logging
from tests.servers.livekit import FREE_PORTS


async def main(folder: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    livekit = EmbeddedLiveKit(
        EmbeddedOptions(folder, "127.0.0.1", FREE_PORTS), AesGcmSecretBox.parse(load_or_create_keys(folder))
    )
    await livekit.start()
    try:
        assert await livekit.wait_ready(20)
        sys.stdout.write((await livekit.address()).url + "\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await livekit.aclose()


if __name__ == "__main__":
    configure_logging()
    asyncio.run(main(Path(sys.argv[1])))
