"""RoomService, the webhook intake and the reconciler on a real livekit-server, with participants of flesh and media."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette

from adapters.db.unit_of_work import SqlDatabase
from adapters.livekit.configured import ConfiguredLiveKit
from adapters.livekit.gateway import TwirpGateway
from adapters.livekit.rooms import LiveKitRooms
from server.clock import SystemClock
from server.domain.room_names import RoomNames
from server.domain.webhook import WebhookEndpoint
from server.ids import ProjectId, new_id
from server.ports.livekit import LiveKitAddress
from server.rooms.intake import LiveKitWebhooks
from server.rooms.journal import RoomJournal
from server.rooms.reconcile import ReconcilePace, Reconciler
from server.services.rooms import Rooms
from server.transports.livekit_webhook import livekit_webhook_routes
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import Eventually
from tests.servers.http import serving
from tests.transport.surface import (
    NOW,
    OTHER_KEY,
    OTHER_PROJECT,
    PROJECT,
    Outcome,
    Surface,
    headers_for,
    running_surface,
)

OTHERS = headers_for(OTHER_KEY, OTHER_PROJECT)
NAMES = RoomNames(ProjectId(PROJECT))


@dataclass
class RoomStage:
    """`surface` serves RoomService on all transports; `hear()` lets LiveKit's webhooks in while it lasts."""

    surface: Surface
    database: SqlDatabase
    address: LiveKitAddress
    rooms: LiveKitRooms
    webhooks: LiveKitWebhooks
    reconciler: Reconciler
    hook_port: int
    eventually: Eventually
    visits: list[Any] = field(default_factory=list)

    async def rest(self, verb: str, path: str, body: Any = None, headers: Any = None) -> Outcome:
        return await self.surface.rest(verb, path, body, headers)

    async def token(self, room: str, identity: str, headers: Any = None, **more: Any) -> str:
        body = {"roomName": room, "participantIdentity": identity, **more}
        answer = await self.rest("POST", "/v1/tokens", body, headers)
        assert answer.status == 200, answer
        return str(answer.reply["token"])

    async def join(self, room: str, identity: str, headers: Any = None, **more: Any) -> Any:
        return await self.connect(await self.token(room, identity, headers, **more))

    async def connect(self, token: str) -> Any:
        from livekit import rtc

        visit = rtc.Room()
        await visit.connect(self.address.public_url, token)
        self.visits.append(visit)
        return visit

    @asynccontextmanager
    async def hear(self) -> AsyncIterator[None]:
        """LiveKit's webhooks are taken."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.hook_port))
        listener.listen()
        async with serving(Starlette(routes=livekit_webhook_routes(self.webhooks)), listener):
            yield

    async def told(self, room: str, project: str = PROJECT) -> list[dict[str, Any]]:
        """The core events about a room, in their order."""

        def look(connection: Any) -> list[dict[str, Any]]:
            rows = connection.exec_driver_sql(
                "SELECT e.body FROM deliveries d JOIN events e ON e.id = d.event_id "
                "WHERE e.family = 'core' AND e.project_id = ? ORDER BY d.sequence",
                (project,),
            )
            return [json.loads(bytes(row[0])) for row in rows]

        async with self.database.read() as tx:
            events = await tx.run_sync(look)
        return [event for event in events if event["data"]["roomName"] == room]

    async def names_told(self, room: str, project: str = PROJECT) -> list[tuple[str, str]]:
        """Event and who or what it is about."""
        return [
            (event["event"], event["data"].get("identity") or event["data"]["roomName"])
            for event in await self.told(room, project)
        ]

    async def close(self) -> None:
        for visit in self.visits:
            await visit.disconnect()
        await self.webhooks.aclose()


@asynccontextmanager
async def room_stage(
    database: SqlDatabase, address: LiveKitAddress, hook_port: int, eventually: Eventually
) -> AsyncIterator[RoomStage]:
    """Both projects subscribe to everything."""
    clock = SystemClock()
    livekit = ConfiguredLiveKit(
        address.url, address.api_key, address.api_secret, public_url=address.public_url
    )
    gateway = TwirpGateway(livekit)
    rooms = LiveKitRooms(gateway)
    journal = RoomJournal(database, OutboxRecorder(lambda: None), NAMES, clock)
    webhooks = LiveKitWebhooks(livekit, journal, clock)
    reconciler = Reconciler(database, rooms, journal, clock, ReconcilePace(0.2, 0.3))
    services = {"RoomService": Rooms(rooms, livekit, NAMES, journal, database, clock)}
    async with running_surface(database, services=services) as surface:
        async with database.begin() as tx:
            for project in (PROJECT, OTHER_PROJECT):
                await tx.webhooks.add(
                    WebhookEndpoint(
                        new_id("wh"), ProjectId(project), "https://hooks.test", ("*",), (), True, NOW, NOW
                    )
                )
            await tx.commit()
        stage = RoomStage(surface, database, address, rooms, webhooks, reconciler, hook_port, eventually)
        try:
            yield stage
        finally:
            await stage.close()
            await gateway.close()
            await livekit.aclose()
