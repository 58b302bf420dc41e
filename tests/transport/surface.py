"""A running server of recording services on all transports, and one caller for each of them."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import grpc
import uvicorn
from google.protobuf import json_format
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from adapters.db.unit_of_work import SqlDatabase
from server.auth.authenticator import KeyAuthoriser
from server.auth.keys import KeyDirectory, digest_of
from server.auth.rtcstack import RtcstackSignatures
from server.clock import SystemClock
from server.context import CallContext
from server.domain.project import ApiKey, Project
from server.ids import ProjectId
from server.observability.metrics import RpcMetrics, exposition
from server.rpc.dispatch import Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.registry import OWN_FILES, Method, Registry, own_services, snake_case
from server.transports.asgi import HttpApp
from server.transports.exchange import BodyLimits
from server.transports.grpc_server import GrpcServer
from server.transports.health import Readiness

PROJECT = "cl_proj_abc123"
OTHER_PROJECT = "cl_other"
KEY = "bax_full_0123456789abcdef"
PLAIN_KEY = "bax_plain_0123456789abcdef"
OTHER_KEY = "bax_other_0123456789abcdef"
ADMIN_TOKEN = "operator-token"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

Answer = Callable[[Any, Any], Any]


@dataclass
class Recorded:
    """One call as a service saw it."""

    method: str
    request: Message | list[Message]
    ctx: CallContext


@dataclass
class Recorder:
    """All services: each method notes its call and gives `answers[method]`, or an empty reply."""

    calls: list[Recorded] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    def always(self, name: str, reply: Message) -> None:
        """`name` answers `reply` from now on."""
        self.answers[name] = lambda _request, _ctx: reply

    def services(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for file in OWN_FILES:
            for service in file.services_by_name.values():
                methods = {snake_case(one.name): self._method(one) for one in service.methods}
                found[service.name] = type(service.name, (), methods)()
        return found

    def _method(self, descriptor: Any) -> Any:
        from google.protobuf.message_factory import GetMessageClass

        reply_type = GetMessageClass(descriptor.output_type)
        name = descriptor.name

        async def answered(request: Any, ctx: CallContext) -> Message:
            self.calls.append(Recorded(name, request, ctx))
            answer = self.answers.get(name)
            reply = reply_type() if answer is None else answer(request, ctx)
            return await reply if asyncio.iscoroutine(reply) else reply

        async def unary(_self: object, request: Message, ctx: CallContext) -> Message:
            return await answered(request, ctx)

        async def client_stream(_self: object, requests: AsyncIterator[Message], ctx: CallContext) -> Message:
            return await answered([request async for request in requests], ctx)

        async def server_stream(_self: object, request: Message, ctx: CallContext) -> AsyncIterator[Message]:
            self.calls.append(Recorded(name, request, ctx))
            answer = self.answers.get(name)
            if answer is None:
                yield reply_type()
                return
            async for reply in answer(request, ctx):
                yield reply

        if descriptor.client_streaming:
            return client_stream
        return server_stream if descriptor.server_streaming else unary


@dataclass(frozen=True)
class Outcome:
    """What a call gave, in terms that all transports share."""

    code: str
    message: str = ""
    reply: Any = None
    meta: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""


_GRPC_CODES = {
    "CANCELLED": "canceled",
    "DATA_LOSS": "dataloss",
}
# Twirp has two more words than gRPC has numbers.
_SAME_ON_GRPC = {"malformed": "invalid_argument", "bad_route": "unimplemented"}


def headers_for(key: str | None = KEY, project: str | None = PROJECT, **more: str) -> dict[str, str]:
    headers = dict(more)
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    if project is not None:
        headers["x-project-id"] = project
    return headers


@dataclass
class Surface:
    """A running server and clients for it."""

    recorder: Recorder
    registry: Registry
    dispatcher: Dispatcher
    keys: KeyDirectory
    database: SqlDatabase
    http: str
    grpc_address: str
    session: aiohttp.ClientSession
    channel: Any
    server: GrpcServer

    def method(self, name: str) -> Method:
        return next(method for method in self.registry if method.name == name)

    async def grpc(
        self,
        method: Method,
        request: Message | bytes,
        headers: Mapping[str, str],
        *,
        timeout: float | None = None,
    ) -> Outcome:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        path = f"/{method.full_name}"
        metadata = tuple(headers.items())
        try:
            if method.server_streaming:
                stream = self.channel.unary_stream(path)(data, metadata=metadata, timeout=timeout)
                replies = [method.reply_type.FromString(raw) async for raw in stream]
                return Outcome("ok", reply=[as_tree(reply) for reply in replies])
            if method.client_streaming:
                call = self.channel.stream_unary(path)(iter([data]), metadata=metadata, timeout=timeout)
            else:
                call = self.channel.unary_unary(path)(data, metadata=metadata, timeout=timeout)
            raw = await call
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            trailers = {str(name): str(value) for name, value in (error.trailing_metadata() or ())}
            meta = {name[4:]: value for name, value in trailers.items() if name.startswith("bax-")}
            return Outcome(
                _GRPC_CODES.get(code, code.lower()), error.details() or "", meta=meta, headers=trailers
            )
        return Outcome("ok", reply=as_tree(method.reply_type.FromString(raw)), raw=raw)

    async def twirp_json(self, method: Method, request: Any, headers: Mapping[str, str]) -> Outcome:
        body: str | bytes
        if isinstance(request, Message):
            body = json_format.MessageToJson(request, preserving_proto_field_name=True)
        else:
            body = request if isinstance(request, str | bytes) else json.dumps(request)
        return await self._twirp(method, body, "application/json", headers)

    async def twirp_protobuf(
        self, method: Method, request: Message | bytes | io.BytesIO, headers: Mapping[str, str]
    ) -> Outcome:
        data = request.SerializeToString() if isinstance(request, Message) else request
        return await self._twirp(method, data, "application/protobuf", headers)

    async def _twirp(self, method: Method, body: Any, kind: str, headers: Mapping[str, str]) -> Outcome:
        url = f"{self.http}/twirp/{method.full_name}"
        async with self.session.post(url, data=body, headers={**headers, "content-type": kind}) as answer:
            raw = await answer.read()
        if answer.status != 200:
            said = json.loads(raw)
            return Outcome(
                said["code"],
                said["msg"],
                meta=said.get("meta", {}),
                status=answer.status,
                headers=answer.headers,
            )
        if kind == "application/protobuf":
            reply = as_tree(method.reply_type.FromString(raw))
        else:
            message = method.reply_type()
            json_format.Parse(raw, message)
            reply = as_tree(message)
        return Outcome("ok", reply=reply, status=200, headers=answer.headers, raw=raw)

    async def rest(
        self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Outcome:
        """`body` is sent as JSON unless it is bytes, or a stream of them, already; `reply` is the parsed answer."""
        sent = dict(headers_for() if headers is None else headers)
        data = None
        if body is not None:
            ready = isinstance(body, bytes | AsyncIterator)
            data = body if ready else json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        url = yarl_as_is(self.http + path)
        async with self.session.request(verb, url, data=data, headers=sent) as answer:
            raw = await answer.read()
        tree = json.loads(raw) if raw and "json" in answer.headers.get("content-type", "") else None
        if answer.status >= 400:
            if tree is not None and "error" in tree:
                error = tree["error"]
                return Outcome(
                    error["code"],
                    error["message"],
                    tree,
                    error.get("details", {}),
                    answer.status,
                    answer.headers,
                    raw,
                )
            detail = tree["detail"] if tree else ""
            return Outcome(str(answer.status), detail, tree, {}, answer.status, answer.headers, raw)
        return Outcome("ok", reply=tree, status=answer.status, headers=answer.headers, raw=raw)


def yarl_as_is(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)


def as_tree(message: Message) -> Any:
    return json_format.MessageToDict(message)


def same_code(code: str) -> str:
    return _SAME_ON_GRPC.get(code, code)


def listening_socket() -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only then.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    return found


async def add_projects(database: SqlDatabase) -> None:
    async with database.begin() as unit:
        for project in (PROJECT, OTHER_PROJECT):
            await unit.projects.add(Project(ProjectId(project), project, NOW))
        for number, (secret, project, baxstream) in enumerate(
            ((KEY, PROJECT, True), (PLAIN_KEY, PROJECT, False), (OTHER_KEY, OTHER_PROJECT, True))
        ):
            digest = digest_of(secret)
            await unit.keys.add_api_key(
                ApiKey(f"key_{number}", ProjectId(project), "test", digest, baxstream, NOW)
            )
        await unit.commit()


@asynccontextmanager
async def running_surface(
    database: SqlDatabase,
    *,
    services: Mapping[str, object] | None = None,
    limits: BodyLimits | None = None,
    routes: Sequence[BaseRoute] = (),
    default_timeout_sec: float = 20.0,
    signatures: RtcstackSignatures | None = None,
) -> AsyncIterator[Surface]:
    """Projects, keys and both servers on free ports of 127.0.0.1; everything stopped at the end."""
    await add_projects(database)
    recorder = Recorder()
    keys = KeyDirectory(database, SystemClock())
    authoriser = KeyAuthoriser(keys, admin_token=ADMIN_TOKEN, signatures=signatures)
    registry = Registry(own_services(recorder.services() if services is None else services, authoriser))
    metrics = RpcMetrics(CollectorRegistry())
    dispatcher = Dispatcher(
        idempotency=IdempotencyKeys(database, SystemClock()),
        clock=SystemClock(),
        metrics=metrics,
        default_timeout_sec=default_timeout_sec,
    )

    async def ready() -> Readiness:
        return Readiness(True)

    async def scrape() -> tuple[bytes, str]:
        return exposition(metrics.registry)

    app = HttpApp(registry, dispatcher, scrape=scrape, readiness=ready, routes=routes, limits=limits)
    grpc_server = GrpcServer(registry, dispatcher)
    port = await grpc_server.start("127.0.0.1:0")
    listener = listening_socket()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=3
    )
    http_server = uvicorn.Server(config)
    serving = asyncio.create_task(http_server.serve([listener]))
    http = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        while not http_server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.005)
        async with (
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield Surface(
                recorder,
                registry,
                dispatcher,
                keys,
                database,
                http,
                f"127.0.0.1:{port}",
                session,
                channel,
                grpc_server,
            )
    finally:
        dispatcher.end_streams()
        http_server.should_exit = True
        await serving
        await grpc_server.stop(1)
        await dispatcher.aclose()
        await keys.aclose()
        listener.close()
