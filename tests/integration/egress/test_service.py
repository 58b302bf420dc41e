"""What starts egresses of real rooms by signature or by itself, over restarts, and what is left to fetch."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.people import People, Person
from tests.servers.bax import ADMIN_TOKEN, PROJECT, Answer, BaxServer, bax_server
from tests.servers.livekit import LiveKitServer

pytestmark = pytest.mark.timeout(180)

ANN = Person("ann", width=320, height=180)
BOB = Person("bob", width=320, height=180, audio=False)
AGENT = Person("helper", kind="agent", width=320, height=180, audio=False)
RULES = "/v1/egress/auto-egress"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, livekit: LiveKitServer) -> Iterator[BaxServer]:
    with bax_server(tmp_path_factory.mktemp("service"), **livekit.settings) as server:
        yield server


@dataclass
class Scene:
    """A server, a room of this test's own, and its people."""

    server: BaxServer
    people: People
    room: str
    eventually: Eventually

    async def call(self, verb: str, path: str, body: object = None, headers: Any = None) -> Answer:
        return await asyncio.to_thread(self.server.call, verb, path, body, headers)

    async def join(self, *people: Person) -> None:
        for person in people:
            await self.people.join(person, self.room)

    async def egresses(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.call("GET", f"/v1/egress?roomName={self.room}")).json[
            "items"
        ]
        return items

    async def reached(self, egress_id: str, status: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            egress: dict[str, Any] = (await self.call("GET", f"/v1/egress/{egress_id}")).json
            return egress if status in (egress["status"], egress["livekitStatus"]) else None

        found: dict[str, Any] = await self.eventually(there, within=40)
        return found

    async def recording(self, egress_id: str) -> None:
        """Until something is on disk."""
        await self.reached(egress_id, "EGRESS_ACTIVE")

        async def some() -> bool:
            shown = (await self.call("GET", f"/v1/egress/{egress_id}")).json
            return bool(shown.get("progress", {}).get("durationMs", 0) >= 500)

        await self.eventually(some, within=30)

    async def rule(self, **rules: Any) -> None:
        body = {"enabled": True, "mode": "record", "quality": "480p", "roomNamePattern": self.room} | rules
        assert (await self.call("PUT", RULES, body)).status == 200


@pytest.fixture
async def scene(server: BaxServer, livekit: LiveKitServer, eventually: Eventually) -> AsyncIterator[Scene]:
    async with People(livekit) as people:
        scene = Scene(server, people, f"svc-{uuid.uuid4().hex[:8]}", eventually)
        yield scene
        await scene.call("PUT", RULES, {"enabled": False, "delaySeconds": 0, "minParticipants": 1})


def signed(pair: dict[str, str], verb: str, url: str, body: bytes = b"") -> dict[str, str]:
    stamp = str(int(time.time()))
    text = f"{verb}\n{url}\n{stamp}\n{hashlib.sha256(body).hexdigest()}"
    mac = hmac.new(pair["apiSecret"].encode(), text.encode(), hashlib.sha256).hexdigest()
    return {
        "X-Api-Key": pair["apiKey"],
        "X-RTCstack-Timestamp": stamp,
        "X-RTCstack-Signature": f"sha256={mac}",
    }


async def test_rtcstacks_client_needs_only_its_pair(scene: Scene) -> None:
    """Signed with a pair of the project; one that is revoked stops at once.

    RT-02, RT-07, RT-08, RT-09, RT-11, RT-12, RT-15, B-68.
    """
    admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    keys = f"/v1/projects/{PROJECT}/livekit-keys"
    pair = (await scene.call("POST", keys, {}, admin)).json
    await scene.join(ANN)
    start, stop, status = (f"/v1/rooms/{scene.room}/recording{end}" for end in ("/start", "/stop", ""))

    first = await scene.call("POST", start, b"{}", signed(pair, "POST", start, b"{}"))
    assert first.status == 201, first.body
    assert (await scene.call("POST", start, None, signed(pair, "POST", start))).status == 200
    egress_id = first.json["egressId"]
    await scene.recording(egress_id)
    shown = await scene.call("GET", status, None, signed(pair, "GET", status))
    assert shown.json == {"active": True, "egressId": egress_id, "startedAt": first.json["startedAt"]}
    assert (await scene.call("POST", stop, None, signed(pair, "POST", stop))).json["status"] == "stopping"
    done = await scene.reached(egress_id, "COMPLETED")
    assert re.search(rf"/{scene.room}/\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d\.mp4$", done["fileUrl"])

    assert (await scene.call("DELETE", f"{keys}/{pair['apiKey']}", None, admin)).status == 204
    refused = await scene.call("GET", status, None, signed(pair, "GET", status))
    assert (refused.status, refused.json["detail"]) == (401, "Missing or invalid X-Api-Key header")


async def test_a_download_address_expires(scene: Scene) -> None:
    """EG-09, RC-12, RC-14: the file for a second, then 403."""
    await scene.join(ANN)
    made = (
        await scene.call("POST", "/v1/recordings/start", {"roomName": scene.room, "quality": "480p"})
    ).json
    await scene.recording(made["egressId"])
    done = (await scene.call("POST", f"/v1/recordings/{made['egressId']}/stop", {})).json
    assert done["status"] == "COMPLETED", done
    path = f"/v1/recordings/{made['id']}/download-url"
    lasting = (await scene.call("GET", path)).json["downloadUrl"].removeprefix(scene.server.url)
    file = await scene.call("GET", lasting, None, {})
    assert (file.status, len(file.body)) == (200, done["fileSize"])
    brief = (
        (await scene.call("GET", f"{path}?expiresIn=1")).json["downloadUrl"].removeprefix(scene.server.url)
    )

    async def expired() -> bool:
        return (await scene.call("GET", brief, None, {})).status == 403

    await scene.eventually(expired, within=10, every=0.2)


async def test_only_people_count(scene: Scene) -> None:
    """AE-06, E.4: neither an agent nor the recorder of a stream is one."""
    await scene.rule(minParticipants=2)
    await scene.join(ANN, AGENT)
    manual = (
        await scene.call("POST", "/v1/recordings/start", {"roomName": scene.room, "quality": "480p"})
    ).json
    await scene.reached(manual["egressId"], "EGRESS_ACTIVE")
    assert [one["id"] for one in await scene.egresses()] == [manual["egressId"]]
    await scene.call("POST", f"/v1/recordings/{manual['egressId']}/stop", {})
    await scene.join(BOB)

    async def second() -> dict[str, Any] | None:
        found = await scene.egresses()
        return found[0] if len(found) == 2 else None

    automatic = await scene.eventually(second, within=20)
    await scene.recording(automatic["id"])
    assert (await scene.call("POST", f"/v1/egress/{automatic['id']}/stop", {})).json["status"] == "COMPLETED"


async def test_once_for_a_session_and_again_for_the_next(scene: Scene) -> None:
    """AE-13, B-78: it ends with the room; the room's next session gets its own."""
    await scene.rule()
    for number in (1, 2):
        await scene.join(ANN)

        async def begun(number: int = number) -> dict[str, Any] | None:
            found = await scene.egresses()
            return found[0] if len(found) == number else None

        egress = await scene.eventually(begun, within=20)
        await scene.recording(egress["id"])
        assert (await scene.call("DELETE", f"/v1/rooms/{scene.room}")).status == 204
        assert (await scene.reached(egress["id"], "COMPLETED"))["durationSec"] >= 0
        await scene.people.tell("ann", "leave")
    assert len(await scene.egresses()) == 2


async def test_the_delay_outlives_a_restart(scene: Scene) -> None:
    """AE-07: who was in the room while nobody looked is not forgotten; and a restart starts nothing twice."""
    await scene.rule(delaySeconds=6)
    await scene.join(ANN)

    async def known() -> bool:
        shown = (await scene.call("GET", f"/v1/rooms/{scene.room}/participants")).json
        return bool(shown["total"] == 1)

    await scene.eventually(known)
    assert await scene.egresses() == []
    await asyncio.to_thread(scene.server.stop)
    await asyncio.to_thread(scene.server.start)

    async def begun() -> dict[str, Any] | None:
        found = await scene.egresses()
        return found[0] if found else None

    egress = await scene.eventually(begun, within=30)
    await scene.recording(egress["id"])
    await asyncio.to_thread(scene.server.stop)
    await asyncio.to_thread(scene.server.start)
    await scene.reached(egress["id"], "EGRESS_ACTIVE")
    assert len(await scene.egresses()) == 1
    assert (await scene.call("POST", f"/v1/egress/{egress['id']}/stop", {})).json["status"] == "COMPLETED"
