"""`POST /livekit/webhook`: only what our LiveKit signed is taken, once, and answered when it is stored (C.2 row 52)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import pytest
from starlette.applications import Starlette

from adapters.db.unit_of_work import SqlDatabase
from adapters.livekit.configured import AbsentLiveKit, ConfiguredLiveKit
from server.clock import SystemClock
from server.domain.room_names import RoomNames
from server.errors import unavailable
from server.rooms.intake import MAX_WAITING, LiveKitWebhooks
from server.rooms.journal import RoomJournal
from server.rooms.news import News
from server.transports.livekit_webhook import MAX_BODY_BYTES, livekit_webhook_routes
from server.webhooks.recorder import OutboxRecorder
from tests.contract.rows import PROJECT, add_endpoints, add_projects, endpoint
from tests.servers.http import bound_socket, serving
from tests.unit.rooms.scenes import body

KEY, SECRET = "APIrooms", "a-secret-of-the-tests-0123456789abcdef" * 2


def claims(content: bytes, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"iss": KEY, "iat": now, "nbf": now, "exp": now + 300, "sha256": digest, **changes}


def signed(content: bytes, secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(content, **changes), secret, algorithm=algorithm)


@dataclass
class Hook:
    url: str
    session: aiohttp.ClientSession
    database: SqlDatabase

    async def post(self, content: Any, token: str | None) -> int:
        headers = {"content-type": "application/webhook+json"}
        if token is not None:
            headers["authorization"] = token
        async with self.session.post(self.url, data=content, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def told(self) -> list[str]:
        async with self.database.read() as tx:
            return await tx.run_sync(
                lambda connection: [
                    json.loads(bytes(row[0]))["event"]
                    for row in connection.exec_driver_sql("SELECT body FROM events ORDER BY created_at")
                ]
            )


@pytest.fixture
async def hook(sqlite_database: SqlDatabase) -> AsyncIterator[Hook]:
    intake = LiveKitWebhooks(_livekit(), _journal(sqlite_database), SystemClock())
    async with hooked(sqlite_database, intake) as made:
        yield made


def _livekit() -> ConfiguredLiveKit:
    return ConfiguredLiveKit("http://127.0.0.1:1", KEY, SECRET)


def _journal(database: SqlDatabase) -> RoomJournal:
    return RoomJournal(database, OutboxRecorder(lambda: None), RoomNames(PROJECT), SystemClock())


@asynccontextmanager
async def hooked(database: SqlDatabase, intake: LiveKitWebhooks) -> AsyncIterator[Hook]:
    async with database.read() as tx:
        known = await tx.projects.get(PROJECT)
    if known is None:
        await add_projects(database)
        await add_endpoints(database, endpoint("wh_1", events=("*",)))
    listener = bound_socket()
    listener.listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/livekit/webhook"
    async with (
        serving(Starlette(routes=livekit_webhook_routes(intake)), listener),
        aiohttp.ClientSession() as session,
    ):
        yield Hook(url, session, database)
        await intake.aclose()


async def test_a_signed_event_is_stored_before_it_is_answered(hook: Hook) -> None:
    """WH-13."""
    content = body("room_started")
    assert await hook.post(content, signed(content)) == 200
    assert await hook.told() == ["room.started"]


async def test_repeats_change_nothing(hook: Hook) -> None:
    """The same bytes and token again, the same event signed afresh, and the same news under another id."""
    content = body("room_started")
    token = signed(content)
    other_id = content.replace(b"EV_", b"EV_x")
    statuses = await asyncio.gather(
        *(hook.post(content, token) for _ in range(10)),
        hook.post(content, signed(content)),
        hook.post(other_id, signed(other_id)),
    )
    assert set(statuses) == {200}
    assert await hook.told() == ["room.started"]


async def test_a_repeat_in_another_process_changes_nothing(hook: Hook, sqlite_database: SqlDatabase) -> None:
    content = body("room_started")
    await hook.post(content, signed(content))
    again = LiveKitWebhooks(_livekit(), _journal(sqlite_database), SystemClock())
    async with hooked(sqlite_database, again) as other:
        assert await other.post(content, signed(content)) == 200
    assert await hook.told() == ["room.started"]


ALTERED = body("room_started", room="altered")
EVENT = body("room_started")
NONE_HEADER = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
DEEP_HEADER = base64.urlsafe_b64encode(b"[" * 3000).rstrip(b"=").decode()


def unsigned(header: str) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims(EVENT)).encode()).rstrip(b"=").decode()
    return f"{header}.{payload}."


@pytest.mark.parametrize(
    ("content", "token"),
    [
        pytest.param(EVENT, None, id="no token"),
        pytest.param(EVENT, "", id="empty token"),
        pytest.param(EVENT, "no.jwt.atall", id="no JWT"),
        pytest.param(EVENT, unsigned(NONE_HEADER), id="alg none"),
        pytest.param(EVENT, unsigned(DEEP_HEADER), id="nested header"),
        pytest.param(EVENT, signed(EVENT)[:-4] + "AAAA", id="signature altered"),
        pytest.param(EVENT, signed(EVENT).rsplit(".", 1)[0] + ".", id="signature removed"),
        pytest.param(EVENT, signed(EVENT, "another-secret-0123456789-0123456789"), id="another key"),
        pytest.param(EVENT, signed(EVENT, algorithm="HS512"), id="another algorithm"),
        pytest.param(EVENT, signed(EVENT, iss="APIother"), id="another issuer"),
        pytest.param(ALTERED, signed(EVENT), id="another body"),
        pytest.param(EVENT + b" ", signed(EVENT), id="one byte more"),
        pytest.param(EVENT, signed(EVENT, sha256=""), id="empty digest"),
        pytest.param(EVENT, signed(EVENT, sha256=None), id="null digest"),
        pytest.param(EVENT, signed(EVENT, sha256="é\ud800"), id="no base64"),
        pytest.param(EVENT, signed(EVENT, sha256=hashlib.sha256(EVENT).hexdigest()), id="hex digest"),
        pytest.param(EVENT, signed(EVENT, exp=int(time.time()) - 3600), id="expired"),
        pytest.param(EVENT, signed(EVENT, nbf=int(time.time()) + 3600), id="not yet valid"),
        pytest.param(EVENT, jwt.encode({"iss": KEY}, SECRET), id="neither expiry nor digest"),
        pytest.param(EVENT, "Bearer " + signed(EVENT), id="with Bearer, which LiveKit does not send"),
        pytest.param(EVENT, signed(EVENT, padding="x" * 5000), id="oversized"),
    ],
)
async def test_attacks(hook: Hook, content: bytes, token: str | None) -> None:
    assert await hook.post(content, token) == 401
    assert await hook.told() == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000])
async def test_what_is_no_event(hook: Hook, content: bytes) -> None:
    """400, which LiveKit does not send again."""
    assert await hook.post(content, signed(content)) == 400


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        body("participant_connection_aborted", who="x"),
        b'{"event": "egress_started", "egressInfo": {"egressId": "EG_1"}}',
        b'{"event": "room_started"}',
        b'{"event": "room_started", "room": {"name": "x"}}',
        b'{"event": "room_started", "room": "x"}',
        b'{"event": "participant_joined", "room": {"sid": "RM_1", "name": "x"}}',
        b'{"event": "track_published", "room": {"sid": "RM_1"}, "track": {"sid": "TR_1"}}',
        b'{"event": 5}',
    ],
)
async def test_what_tells_nothing_of_rooms(hook: Hook, content: bytes) -> None:
    assert await hook.post(content, signed(content)) == 200
    assert await hook.told() == []


async def test_odd_values_are_taken_as_they_can_be(hook: Hook) -> None:
    """Null characters and lone surrogates, which no database takes; times that are none."""
    content = json.dumps(
        {
            "event": "participant_joined",
            "room": {"sid": "RM_1", "name": "a\0b\ud800", "creationTime": "soon"},
            "participant": {"sid": "PA_1", "identity": "\0", "joinedAt": "9" * 40, "kind": "ROBOT"},
            "createdAt": -1,
        }
    ).encode()
    assert await hook.post(content, signed(content)) == 200
    assert await hook.told() == ["room.started", "participant.joined"]


async def test_a_large_body_is_refused_as_soon_as_it_is_too_large(hook: Hook) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 4):
            yield b" " * 65536

    with_length = b" " * (MAX_BODY_BYTES + 1)
    assert await hook.post(io.BytesIO(with_length), signed(with_length)) == 413
    assert await hook.post(endless(), signed(b"")) == 413


async def test_a_slow_body_is_given_up(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transports.livekit_webhook.BODY_TIMEOUT_SEC", 0.2)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    assert await hook.post(never(), "token") == 408


async def test_other_methods_are_refused(hook: Hook) -> None:
    async with hook.session.get(hook.url) as answer:
        assert answer.status == 405


async def test_without_livekit_it_is_to_be_sent_again(sqlite_database: SqlDatabase) -> None:
    intake = LiveKitWebhooks(AbsentLiveKit(), _journal(sqlite_database), SystemClock())
    async with hooked(sqlite_database, intake) as hook:
        assert await hook.post(EVENT, signed(EVENT)) == 503


class _Failing(RoomJournal):
    """Stands in for a database that is away, or that one event's content upsets; for the rest it is real."""

    down = True

    async def take_in(self, news: Sequence[News]) -> int:
        if self.down:
            raise unavailable("the database is away", retry_after_sec=1)
        if any(one.room.name == "poison" for one in news):
            raise LookupError("poison")
        return await super().take_in(news)


async def test_what_could_not_be_stored_is_to_be_sent_again(sqlite_database: SqlDatabase) -> None:
    """And then it is new: nothing remembers an event that was not committed."""
    journal = _Failing(sqlite_database, OutboxRecorder(lambda: None), RoomNames(PROJECT), SystemClock())
    async with hooked(sqlite_database, LiveKitWebhooks(_livekit(), journal, SystemClock())) as hook:
        token = signed(EVENT)
        assert await hook.post(EVENT, token) == 503
        journal.down = False
        assert await hook.post(EVENT, token) == 200
        assert await hook.told() == ["room.started"]


async def test_one_bad_event_fails_alone(sqlite_database: SqlDatabase) -> None:
    journal = _Failing(sqlite_database, OutboxRecorder(lambda: None), RoomNames(PROJECT), SystemClock())
    journal.down = False
    intake = LiveKitWebhooks(_livekit(), journal, SystemClock())
    contents = [body("room_started", sid=f"RM_{n}", room="poison" if n == 3 else "fine") for n in range(8)]
    async with hooked(sqlite_database, intake) as hook:
        results = await asyncio.gather(
            *(intake.accept(signed(one), one) for one in contents), return_exceptions=True
        )
        assert [type(result) for result in results] == [
            LookupError if n == 3 else type(None) for n in range(8)
        ]
        assert await hook.told() == ["room.started"] * 7
        assert await hook.post(contents[3], signed(contents[3])) == 500


async def test_a_flood_is_answered_with_try_again(sqlite_database: SqlDatabase) -> None:
    """Memory stays bounded, and what was accepted is stored."""
    await add_projects(sqlite_database)
    intake = LiveKitWebhooks(_livekit(), _journal(sqlite_database), SystemClock())
    count = MAX_WAITING + 300
    contents = [body("room_started", sid=f"RM_{n}") for n in range(count)]
    results = await asyncio.gather(
        *(intake.accept(signed(one), one) for one in contents), return_exceptions=True
    )
    refused = [result for result in results if result is not None]
    assert 0 < len(refused) <= 300
    assert all("waiting" in str(result) for result in refused)
    async with sqlite_database.read() as tx:
        assert len((await tx.rooms.present()).rooms) == count - len(refused)
