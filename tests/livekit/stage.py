"""A real livekit-server and our server in front of it, with three projects' key pairs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
from prometheus_client import CollectorRegistry

from adapters.db.changes import change_feed
from adapters.db.unit_of_work import SqlDatabase
from adapters.http.netguard import NetGuard
from adapters.livekit.configured import ConfiguredLiveKit
from adapters.livekit.gateway import TwirpGateway
from adapters.livekit.rooms import LiveKitRooms
from adapters.livekit.signal import AiohttpSignal
from server.auth.livekit_tokens import LiveKitPairs
from server.clock import SystemClock
from server.domain.project import LiveKitKey, Project
from server.domain.room_names import RoomNames
from server.egress.board import OrdersBoard
from server.egress.control import EgressControl
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.http_server import HttpServer, bind_http
from server.ids import ProjectId
from server.jobs.engine import LeaseJobEngine
from server.livekit import request_reader
from server.livekit_api import LiveKitApi, livekit_api
from server.observability.metrics import RpcMetrics, exposition
from server.ports.livekit import LiveKitAddress, LiveKitSource
from server.rpc.dispatch import Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.registry import Registry
from server.services.livekit_egress import EgressParts, LiveKitEgress
from server.transports.asgi import HttpApp
from server.transports.grpc_server import GrpcServer
from server.transports.health import Readiness
from server.webhooks.recorder import OutboxRecorder

BOOTSTRAP = ProjectId("cl_default")
OTHER = ProjectId("cl_other")
THIRD = ProjectId("cl_third")
NAMES = RoomNames(BOOTSTRAP)


@dataclass(frozen=True, slots=True)
class Pair:
    """A LiveKit-style key and what signs with it."""

    api_key: str
    api_secret: str = field(repr=False)

    def token(self, video: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Valid for an hour unless `claims` say otherwise; None leaves one out."""
        given = {"iss": self.api_key, "exp": int(time.time()) + 3600, "video": video, **claims}
        kept = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(kept, self.api_secret, algorithm="HS256")


OWN = Pair("APIbootstrapPair", "bootstrap-secret-0123456789abcdefghij")
OTHERS = Pair("APIotherPair", "other-secret-0123456789abcdefghijklm")
THIRDS = Pair("APIthirdPair", "third-secret-0123456789abcdefghijklm")
PAIRS = {BOOTSTRAP: OWN, OTHER: OTHERS, THIRD: THIRDS}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, as a client sees it."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class LiveKitStage:
    """`url` is ours, `livekit` what is behind it; both are called by the same session."""

    url: str
    grpc_address: str
    livekit: LiveKitAddress
    api: LiveKitApi
    database: SqlDatabase
    session: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        body: bytes | Mapping[str, Any],
        token: str | None,
        *,
        base: str | None = None,
        verb: str = "POST",
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`method` like `RoomService/ListRooms`, or a path; `base` is our own address unless given."""
        path = method if method.startswith("/") else f"/twirp/livekit.{method}"
        sent = dict(headers or {})
        if kind:
            sent["content-type"] = kind
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(
            verb, (base or self.url) + path, data=data, headers=sent, allow_redirects=False
        ) as answer:
            return Answer(
                answer.status, answer.headers.get("content-type", ""), await answer.read(), answer.headers
            )


async def add_projects(database: SqlDatabase) -> None:
    """Three projects with a pair each."""
    now = SystemClock().now()
    async with database.begin() as unit:
        for project_id, pair in PAIRS.items():
            await unit.projects.add(Project(project_id, project_id, now))
            await unit.keys.add_livekit_key(LiveKitKey(pair.api_key, project_id, pair.api_secret, now))
        await unit.commit()


@asynccontextmanager
async def livekit_stage(database: SqlDatabase, address: LiveKitAddress) -> AsyncIterator[LiveKitStage]:
    """Our servers, HTTP and gRPC, in front of the LiveKit at `address`."""
    source = ConfiguredLiveKit(
        address.url, address.api_key, address.api_secret, public_url=address.public_url
    )
    await add_projects(database)
    async with serving_livekit(database, source, address) as stage:
        yield stage
    await source.aclose()


def open_egress(
    database: SqlDatabase, rooms: LiveKitRooms, clock: SystemClock
) -> Callable[[LiveKitPairs], LiveKitEgress]:
    """Accepts egresses; there is no worker that would begin them."""
    recorder = OutboxRecorder(lambda: None)
    # Nobody waits for changes without a worker.
    engine = LeaseJobEngine(database, recorder, clock, change_feed("sqlite:///nowhere.db"))
    storage = StorageChoices(StoragePolicy(None, True, BOOTSTRAP))
    control = EgressControl(database, engine, rooms, storage, OrdersBoard(), clock)
    reader = request_reader(NetGuard())
    return lambda pairs: LiveKitEgress(EgressParts(control, lambda: reader, rooms, NAMES, pairs))


@asynccontextmanager
async def serving_livekit(
    database: SqlDatabase, source: LiveKitSource, address: LiveKitAddress
) -> AsyncIterator[LiveKitStage]:
    """The same for any source of a LiveKit; the projects exist already."""
    clock = SystemClock()
    gateway = TwirpGateway(source)
    signal = AiohttpSignal(source)
    listing = LiveKitRooms(gateway)
    egress = open_egress(database, listing, clock)
    api = livekit_api(database, source, gateway, signal, NAMES, clock, listing=listing, egress=egress)
    registry = Registry(list(api.services))
    metrics = RpcMetrics(CollectorRegistry())
    dispatcher = Dispatcher(idempotency=IdempotencyKeys(database, clock), clock=clock, metrics=metrics)

    async def ready() -> Readiness:
        return Readiness(True)

    async def scrape() -> tuple[bytes, str]:
        return exposition(metrics.registry)

    app = HttpApp(
        registry,
        dispatcher,
        scrape=scrape,
        readiness=ready,
        livekit=api.app(registry, dispatcher),
    )
    grpc_server = GrpcServer(registry, dispatcher)
    grpc_port = await grpc_server.start("127.0.0.1:0")
    listener = bind_http("127.0.0.1", 0)
    http = HttpServer(app, listener)
    http.start()
    try:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=30), skip_auto_headers=("Content-Type",)
        ) as session:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield LiveKitStage(url, f"127.0.0.1:{grpc_port}", address, api, database, session)
    finally:
        await http.stop(2.0)
        await grpc_server.stop(1.0)
        await dispatcher.aclose()
        await gateway.close()
        await signal.close()
        listener.close()
