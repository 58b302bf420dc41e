"""A worker as `bax serve --role worker` runs one, without ports; started by the tests that kill it.

Run as `python -m tests.faults.worker_process '{"data_dir": …, …}'` with the settings as JSON. It writes `ready` to its
output once it takes jobs, drains on SIGTERM and ends with status 0.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

from server.app import open_backend
from server.ground import Patience
from server.settings import load_settings
from tests.integration.conversion_stage import PUBLIC_URL

RETRY_DELAY_SEC = 0.2


async def main(given: Mapping[str, Any]) -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    settings = load_settings(**given)
    patience = Patience(retry_delay_sec=RETRY_DELAY_SEC)
    async with open_backend(settings, public_url=PUBLIC_URL, with_worker=True, patience=patience) as backend:
        assert backend.worker is not None
        await backend.worker.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await terminated.wait()
        await backend.worker.drain(settings.drain_grace_sec)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(main(json.loads(sys.argv[1])))
