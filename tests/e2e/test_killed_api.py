"""kill -9 of the API between taking a call and answering it; the client repeats it (2.8 case 32)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from adapters.db.idempotency import RUNS_AT_MOST
from tests.conftest import Eventually
from tests.servers.bax import BaxServer, bax_server

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]

_BODY = {"inputUrl": "http://127.0.0.1:9/clip.mp4"}
# Each is a statement of the call; its trigger never comes to an end, so the process dies inside the transaction. What
# comes after is how many keys and jobs are committed by then.
_MOMENTS = {
    "before the key is taken": ("INSERT ON idempotency_keys", (0, 0)),
    "before the job is committed": ("INSERT ON jobs", (1, 0)),
    "before the answer is stored": ("UPDATE ON idempotency_keys", (1, 1)),
}
_HELD_LOOKS = 25
_STUCK = """
    CREATE TABLE many AS SELECT a.name AS x FROM pragma_function_list a, pragma_function_list b LIMIT 20000;
    CREATE TRIGGER stuck BEFORE {statement} BEGIN SELECT count(*) FROM many a, many b, many c, many d; END;
"""


@contextmanager
def _database(server: BaxServer, *, patience_sec: float = 10) -> Iterator[sqlite3.Connection]:
    with closing(
        sqlite3.connect(server.data_dir / "baxcloud.db", isolation_level=None, timeout=patience_sec)
    ) as connection:
        yield connection


def _is_writing(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    connection.execute("ROLLBACK")
    return False


def _committed(connection: sqlite3.Connection) -> tuple[int, int]:
    """Keys and jobs."""
    rows = connection.execute("SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM jobs)")
    keys, jobs = rows.fetchone()
    return keys, jobs


@pytest.mark.parametrize("moment", _MOMENTS)
async def test_a_repeated_call_makes_one_job(tmp_path: Path, eventually: Eventually, moment: str) -> None:
    """The key is refused while the first call may still run, five minutes at most; then there is one job, and stays so."""
    statement, committed = _MOMENTS[moment]
    with bax_server(tmp_path / "bax", role="api") as server:
        headers = {**server.headers, "idempotency-key": "order-7"}

        def call() -> tuple[int, str]:
            answer = server.call("POST", "/video/convert", _BODY, headers)
            return answer.status, answer.json["id"] if answer.status == 201 else answer.json["error"]["code"]

        with _database(server, patience_sec=0) as database, ThreadPoolExecutor(1) as client:
            database.executescript(_STUCK.format(statement=statement))
            first = client.submit(call)
            held = 0

            def is_stuck() -> bool:
                """Other transactions are short: who holds the lock at look after look is in the trigger."""
                nonlocal held
                held = held + 1 if _is_writing(database) and _committed(database) == committed else 0
                return held == _HELD_LOOKS

            await eventually(is_stuck)
            server.process.kill()
            server.process.wait(10)
            assert isinstance(first.exception(10), OSError)
            database.execute("DROP TRIGGER stuck")

        server.start()
        at_once = call()
        with _database(server) as database:
            aged = int(RUNS_AT_MOST.total_seconds() * 1e6)
            database.execute(
                "UPDATE idempotency_keys SET created_at = created_at - ? WHERE reply IS NULL", (aged,)
            )
        later = call()
        again = call()
        with _database(server) as database:
            stored = _committed(database)

        assert at_once == (later if moment == "before the key is taken" else (409, "IDEMPOTENCY_IN_PROGRESS"))
        assert later[0] == 201
        assert again == later
        assert stored == (1, 1)
