"""Processes that claim jobs and beat, and a killer among them, for the contract suite's case 36.

Run as `python -m tests.contract.claim_process '{"database_url": …, "processes": 8, "kills": 200, …}'`. This process only
forks and kills, so that a death costs a fork and not a start of Python. Each child writes `claimed JOB OWNER` after its
commit, and `failed …` if the database refused it anything; it ends when no job is left and no kill is to come.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from adapters.crypto import AesGcmSecretBox
from adapters.db.tables import jobs
from adapters.db.unit_of_work import SqlDatabase, open_database
from server.clock import SystemClock
from server.domain.job import JobStatus
from server.ids import JobId

KIND = "conversion"


def say(*words: object) -> None:
    # One write of a short line is whole, whoever else writes to the pipe.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def claim_one(database: SqlDatabase, owner: str) -> JobId | None:
    async with database.begin() as tx:
        job_id = await tx.queue.next_waiting(KIND, after="")
        job = job_id and await tx.jobs.claim(job_id, owner=owner, now=SystemClock().now())
        if not job:
            return None
        await tx.commit()
    say("claimed", job.id, owner)
    return job.id


async def waiting(database: SqlDatabase) -> bool:
    """Whether a job is left, also one that a claimer who was killed a moment ago still holds locked."""
    left = select(jobs.c.id).where(jobs.c.status == JobStatus.PENDING.value).limit(1)
    async with database.read() as tx:
        return await tx.run_sync(lambda connection: connection.execute(left).first()) is not None


async def work(given: Mapping[str, Any], owner: str, stop: asyncio.Event) -> None:
    box = AesGcmSecretBox.parse(given["secret_keys"])
    database = await open_database(given["database_url"], box, migrated=True)
    mine: list[JobId] = []
    # Once all jobs are taken it goes on to write, so that who is killed late is killed while it commits too.
    while not stop.is_set() or await waiting(database):
        claimed = await claim_one(database, owner)
        mine += [claimed] if claimed else []
        async with database.begin() as tx:
            await tx.queue.beat(owner, mine[-5:])
            await tx.commit()
    await database.close()


async def child(given: Mapping[str, Any], owner: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    await work(given, owner, stop)


def fork(given: Mapping[str, Any], number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        asyncio.run(child(given, f"claimer-{number}"))
        status = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test is told
        say("failed", repr(error))
    os._exit(status)


def main(given: Mapping[str, Any]) -> None:
    # Children inherit this, and take the signal once they can.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    chance = random.Random(given["seed"])
    alive = [fork(given, number) for number in range(given["processes"])]
    for kill in range(given["kills"]):
        time.sleep(chance.uniform(*given["pause_sec"]))
        victim = alive.pop(chance.randrange(len(alive)))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        alive.append(fork(given, given["processes"] + kill))
    say("killed", given["kills"])
    # Ends this process when the test closes its side.
    sys.stdin.read()
    for pid in alive:
        os.kill(pid, signal.SIGTERM)
    say("ended", *(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in alive))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
