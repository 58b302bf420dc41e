"""A relay in a process of its own, for the tests to kill: `python -m tests.contract.relay_process DATABASE_URL KEYS`."""

from __future__ import annotations

import asyncio
import sys

from adapters.crypto import AesGcmSecretBox
from adapters.db.unit_of_work import open_database
from adapters.http.netguard import NetGuard
from adapters.http.webhook_sender import HttpWebhookSender
from server.clock import SystemClock
from server.webhooks.relay import WebhookRelay


async def main(url: str, keys: str) -> None:
    database = await open_database(url, AesGcmSecretBox.parse(keys), migrated=True)
    sender = HttpWebhookSender(NetGuard(allow_private=True))
    WebhookRelay(database, sender, SystemClock(), owner="killed").start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
