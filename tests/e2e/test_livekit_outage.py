"""Our server is away for a whole minute while people come and go in LiveKit's rooms (issue "Rooms", section 4)."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.servers.bax import BaxServer, bax_server
from tests.servers.livekit import LiveKitServer, livekit_server
from tests.sinks import Sink
from tests.soak import only_in_soak

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240), only_in_soak]

# Twice what LiveKit keeps its events for.
AWAY_SEC = 60.0
_PATIENCE_SEC = 40.0


class People:
    """Who is in LiveKit's rooms: they talk to it alone, so they do not care whether we are there."""

    def __init__(self, server: BaxServer, livekit: LiveKitServer) -> None:
        self._server = server
        self._livekit = livekit
        self._tokens: dict[str, str] = {}
        self._visits: dict[str, Any] = {}

    def invite(self, room: str, *identities: str) -> None:
        for identity in identities:
            body = {"roomName": room, "participantIdentity": identity}
            answer = self._server.call("POST", "/v1/tokens", body)
            assert answer.status == 200, answer.body
            self._tokens[identity] = answer.json["token"]

    async def join(self, *identities: str) -> None:
        from livekit import rtc

        for identity in identities:
            self._visits[identity] = rtc.Room()
            await self._visits[identity].connect(self._livekit.address.public_url, self._tokens[identity])

    async def leave(self, *identities: str) -> None:
        for identity in identities:
            await self._visits.pop(identity).disconnect()

    async def close(self) -> None:
        await self.leave(*list(self._visits))


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as listening:
        yield listening


def told(sink: Sink) -> Counter[tuple[str, str]]:
    """How often each event about a person or a room was announced; repeats of one event count once."""
    events = {body["eventId"]: body for body in (json.loads(one.body) for one in sink.received)}
    return Counter(
        (one["event"], one["data"].get("identity") or one["data"]["roomName"]) for one in events.values()
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_minute_without_our_server(tmp_path: Path, sink: Sink, eventually: Eventually) -> None:
    """Every join and leave that still matters is announced once, and the rooms that began and ended too."""
    port = free_port()
    with (
        livekit_server(tmp_path, f"http://127.0.0.1:{port}/livekit/webhook") as livekit,
        bax_server(
            tmp_path / "bax",
            http_port=str(port),
            livekit_embedded="1",
            livekit_url=livekit.address.public_url,
            livekit_api_key=livekit.address.api_key,
            livekit_api_secret=livekit.address.api_secret,
        ) as server,
    ):
        made = server.call("POST", "/v1/webhooks", {"url": sink.url, "events": ["room.*", "participant.*"]})
        assert made.status < 300, made.body
        people = People(server, livekit)
        people.invite("long", "alice", "bob", "carol", "dave")
        people.invite("later", "erin")
        people.invite("gone", "frank")
        try:
            await people.join("alice", "bob", "frank")
            await eventually(lambda: told(sink).total() == 5, within=_PATIENCE_SEC)

            assert server.stop() == 0
            stopped_at = time.monotonic()
            await people.leave("alice", "frank")
            await people.join("carol", "dave", "erin")
            await people.leave("dave")
            await asyncio.sleep(AWAY_SEC - (time.monotonic() - stopped_at))
            server.start()

            await eventually(lambda: told(sink)["participant.joined", "erin"] == 1, within=_PATIENCE_SEC)
            await eventually(lambda: told(sink)["participant.left", "alice"] == 1, within=_PATIENCE_SEC)
            for room in ("long", "later"):
                assert server.call("DELETE", f"/v1/rooms/{room}").status < 300
            await eventually(
                lambda: sum(told(sink)["room.finished", room] for room in ("long", "later", "gone")) == 3,
                within=_PATIENCE_SEC,
            )
        finally:
            await people.close()
        announced = told(sink)
        server.stop()

    # Dave came and went unseen: he is told of in whole or not at all.
    assert announced.pop(("participant.joined", "dave"), 0) == announced.pop(("participant.left", "dave"), 0)
    assert announced == {
        **{("room.started", room): 1 for room in ("long", "later", "gone")},
        **{("room.finished", room): 1 for room in ("long", "later", "gone")},
        **{("participant.joined", who): 1 for who in ("alice", "bob", "carol", "erin", "frank")},
        **{("participant.left", who): 1 for who in ("alice", "bob", "carol", "erin", "frank")},
    }
