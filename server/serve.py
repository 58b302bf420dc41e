"""Runs the backend behind its transports until a signal: what `bax serve` does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import structlog
import uvloop

from server.app import Backend, Worker
from server.auth.authenticator import KeyAuthoriser
from server.auth.rtcstack import RtcstackSignatures
from server.bootstrap import ADMIN_TOKEN_FILE, admin_token
from server.health import Health
from server.http_server import HttpServer, ListenError, bind_http
from server.ids import ProjectId
from server.observability.metrics import RpcMetrics
from server.observability.tracing import tracer
from server.rpc.dispatch import Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.rate_limit import RateLimit
from server.rpc.registry import Registry, own_services
from server.settings import Settings
from server.start import opened_backend
from server.transports.asgi import HttpApp
from server.transports.exchange import BodyLimits
from server.transports.grpc_server import GrpcServer
from server.transports.health import health_app
from server.transports.livekit_webhook import livekit_webhook_routes
from server.transports.objects import object_routes
from server.transports.player import page_routes

WEB = Path(__file__).resolve().parent.parent / "web"
_LIVEKIT_WAIT_SEC = 20.0
_LAST_ANSWERS_SEC = 1.0
_log = structlog.get_logger("serve")


class Role(str, Enum):
    """What one process does: everything, only calls, or only jobs, webhooks and housekeeping."""

    ALL = "all"
    API = "api"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the operator is told once the server is ready.

    `new_api_key` is set only in the start that made it. A worker has no `grpc_address`, and an `http_url`, for health
    and metrics alone, only if it was given a port. `admin_token_file` is None there, and where the operator set the token.
    """

    role: Role
    http_url: str | None
    grpc_address: str | None
    data_dir: Path
    project_id: ProjectId
    new_api_key: str | None = field(repr=False)
    admin_token_file: Path | None


Announce = Callable[[Announcement], None]


def serve(settings: Settings, role: Role, announce: Announce) -> None:
    """Blocks until SIGTERM or SIGINT. Raise ListenError for a taken port, StartError for what else is wrong."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, role, announce))


async def _serve(settings: Settings, role: Role, announce: Announce) -> None:
    stop = _stop_on_signals()
    if role is Role.WORKER:
        await _serve_worker(settings, announce, stop)
        return
    listener = bind_http(settings.http_host, settings.http_port)
    try:
        local_url = _local_url(settings, listener.getsockname()[1])
        url = _public_url(settings, listener.getsockname()[1])
        async with opened_backend(
            settings, public_url=url, with_worker=role is Role.ALL, local_url=local_url
        ) as backend:
            await _run(Front(backend, role), backend.worker, listener, announce, stop)
    finally:
        listener.close()


async def _serve_worker(settings: Settings, announce: Announce, stop: asyncio.Event) -> None:
    port = settings.worker_http_port
    # Before anything else, so that a taken port is told at once.
    listener = None if port is None else bind_http(settings.http_host, port, setting="BAX_WORKER_HTTP_PORT")
    try:
        url = _public_url(settings, settings.http_port)
        async with opened_backend(settings, public_url=url, with_worker=True) as backend:
            assert backend.worker is not None
            health = Health(backend, Role.WORKER.value)
            http = (
                None
                if listener is None
                else HttpServer(health_app(health.readiness, health.scrape), listener)
            )
            if http is not None:
                http.start()
            await backend.worker.start()
            health.ready = True
            own_url = None if listener is None else _local_url(settings, listener.getsockname()[1])
            announce(_announcement(backend, Role.WORKER, own_url, None))
            await stop.wait()
            health.ready = False
            await backend.worker.drain(settings.drain_grace_sec)
            if http is not None:
                await http.stop(_LAST_ANSWERS_SEC)
    finally:
        if listener is not None:
            listener.close()


async def _run(
    front: Front, worker: Worker | None, listener: socket.socket, announce: Announce, stop: asyncio.Event
) -> None:
    http = await front.start(listener)
    if worker is not None:
        await worker.start()
    # Without a LiveKit everything but rooms works, so the server is ready all the same.
    await front.livekit.wait_ready(_LIVEKIT_WAIT_SEC)
    front.health.ready = True
    announce(front.announcement(listener.getsockname()[1]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, http}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    grace = front.settings.drain_grace_sec
    _log.info("stopping: running calls and jobs may end", grace_sec=grace)
    # Together, so that the grace is given once: calls in progress need no worker, and jobs need no calls.
    await asyncio.gather(front.stop(grace), *([worker.drain(grace)] if worker is not None else ()))
    if not stop.is_set():
        http.result()
        raise RuntimeError("the HTTP server ended by itself")


class Front:
    """Everything that listens in this process."""

    def __init__(self, backend: Backend, role: Role) -> None:
        self.settings = backend.settings
        self.health = Health(backend, role.value)
        self.livekit = backend.livekit.source
        self._backend = backend
        self._role = role
        self._grpc_port = 0
        metrics = RpcMetrics(backend.metrics.registry)
        api = backend.livekit.api
        authoriser = KeyAuthoriser(
            backend.keys,
            admin_token=admin_token(self.settings),
            signatures=RtcstackSignatures(api.pairs, backend.clock),
        )
        registry = Registry([*own_services(backend.services, authoriser), *api.services])
        self._dispatcher = Dispatcher(
            idempotency=IdempotencyKeys(backend.database, backend.clock),
            clock=backend.clock,
            metrics=metrics,
            tracer=tracer(),
            rate_limit=RateLimit(limit) if (limit := self.settings.rate_limit_per_minute) else None,
        )
        self._app = HttpApp(
            registry,
            self._dispatcher,
            scrape=self.health.scrape,
            readiness=self.health.readiness,
            routes=[
                *object_routes(backend.objects),
                *page_routes(WEB, self.livekit),
                *livekit_webhook_routes(backend.livekit.intake),
            ],
            limits=BodyLimits(upload_bytes=self.settings.max_upload_bytes),
            livekit=api.app(registry, self._dispatcher),
        )
        self._grpc = GrpcServer(registry, self._dispatcher, reflection_on=self.settings.grpc_reflection)
        self._http: HttpServer | None = None

    async def start(self, listener: socket.socket) -> asyncio.Task[None]:
        """Listen; the task ends with the HTTP server. Raise ListenError when the gRPC port is taken."""
        host, port = self.settings.http_host, self.settings.grpc_port
        try:
            self._grpc_port = await self._grpc.start(f"{_in_url(host)}:{port}")
        except OSError as fault:
            raise ListenError(
                f"cannot listen on {host} port {port} for gRPC: Address already in use or not ours; "
                "choose another port with --grpc-port or BAX_GRPC_PORT (0 picks a free one)"
            ) from fault
        self._http = HttpServer(self._app, listener)
        return self._http.start()

    async def stop(self, grace_sec: float) -> None:
        """Answer health checks with no, accept no more, let calls end for at most `grace_sec`."""
        self.health.ready = False
        await self._grpc.set_serving(False)
        self._dispatcher.end_streams()
        assert self._http is not None
        await asyncio.gather(self._http.stop(grace_sec), self._grpc.stop(grace_sec))
        await self._dispatcher.aclose()

    def announcement(self, http_port: int) -> Announcement:
        host = _in_url(_reachable(self.settings.http_host))
        return _announcement(
            self._backend, self._role, f"http://{host}:{http_port}", f"{host}:{self._grpc_port}"
        )


def _announcement(
    backend: Backend, role: Role, http_url: str | None, grpc_address: str | None
) -> Announcement:
    settings = backend.settings
    own_token = role is not Role.WORKER and settings.admin_token is None
    return Announcement(
        role=role,
        http_url=http_url,
        grpc_address=grpc_address,
        data_dir=settings.data_dir,
        project_id=backend.started.project_id,
        new_api_key=backend.started.new_api_key,
        admin_token_file=settings.data_dir / ADMIN_TOKEN_FILE if own_token else None,
    )


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once, whatever is running."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _public_url(settings: Settings, port: int) -> str:
    if settings.public_url:
        return str(settings.public_url).rstrip("/")
    return _local_url(settings, port)


def _local_url(settings: Settings, port: int) -> str:
    return f"http://{_in_url(_reachable(settings.http_host))}:{port}"


def _reachable(host: str) -> str:
    """An address that a client on this machine can use: listening on all is no address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
