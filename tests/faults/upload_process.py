"""A worker as far as its upload: says under which name it claims a job, then sends a file in parts until it is killed.

Run as `python -m tests.faults.upload_process '{"endpoint": …, "bucket": …, "prefix": …, "file": …}'`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from adapters.storage.s3 import S3Store
from adapters.storage.s3_client import S3Clients, S3Options, Way
from server.domain.project import S3Config
from server.jobs.owner import new_owner

PART_SIZE = 5 << 20


async def anywhere(url: str) -> tuple[str, ...]:
    return ("127.0.0.1",)


async def main(given: Mapping[str, str]) -> None:
    config = S3Config(
        bucket=given["bucket"],
        endpoint=given["endpoint"],
        access_key=given["access_key"],
        secret_key=given["secret_key"],
    )
    options = S3Options(part_size=PART_SIZE)
    clients = S3Clients(anywhere, options)
    store = S3Store(await clients.get(config, Way(trusted=True)), config, given["prefix"], options)
    sys.stdout.write(new_owner() + "\n")
    sys.stdout.flush()
    await store.put_file("360p/segment_000.ts", Path(given["file"]), content_type="video/mp2t")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
