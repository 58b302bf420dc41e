"""Calls without a server: the same services in this process, through the same dispatch."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from generated.baxcloud.v1 import options_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as conversion_pb
from server.app import Backend
from server.cli.api import CHUNK_BYTES, Refused, find_method
from server.cli.configuration import settings_from
from server.cli.output import Failed, note
from server.context import Caller, CallerKind, SignedRequest
from server.errors import ServiceError
from server.ids import ProjectId
from server.observability.logging import configure_logging
from server.observability.metrics import RpcMetrics
from server.rpc.dispatch import CallInfo, Dispatcher
from server.rpc.idempotency import IdempotencyKeys
from server.rpc.json_codec import REST_JSON
from server.rpc.registry import Method, Registry, own_services
from server.settings import Settings
from server.start import StartError, opened_backend

_PROJECT_ACCESS = options_pb2.ACCESS_BAXSTREAM


class LocalApi:
    """Implements `Api` on an open backend, as its operator."""

    def __init__(self, backend: Backend, project_id: str) -> None:
        self.backend = backend
        self.project_id = project_id
        self._registry = Registry(own_services(backend.services, _Operator(ProjectId(project_id))))
        self._dispatcher = Dispatcher(
            idempotency=IdempotencyKeys(backend.database, backend.clock),
            clock=backend.clock,
            metrics=RpcMetrics(CollectorRegistry()),
        )

    async def call(self, method: str, request: Message) -> dict[str, Any]:
        with _refusals():
            reply = await self._dispatcher.unary(self._find(method), lambda: request, _call())
        return _tree(reply)

    async def upload(self, file: Path, options: conversion_pb.UploadOptions) -> dict[str, Any]:
        with _refusals():
            method = self._find("VideoConversionService/UploadVideo")
            return _tree(await self._dispatcher.client_stream(method, _parts(file, options), _call()))

    async def watch(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        method = self._find("VideoConversionService/WatchConversionJob")
        request = conversion_pb.WatchConversionJobRequest(job_id=job_id)
        with _refusals():
            async for reply in self._dispatcher.server_stream(method, lambda: request, _call()):
                yield _tree(reply)

    def _find(self, method: str) -> Method:
        found = self._registry.find(find_method(method).full_name)
        assert found is not None
        return found


class _Operator:
    """Whoever may read the data directory may do everything; implements `Authoriser`."""

    def __init__(self, project_id: ProjectId) -> None:
        self._project_id = project_id

    def check(self, method: Method) -> None:
        """Everything may be called."""

    async def authenticate(
        self, method: Method, headers: Mapping[str, str], signed: SignedRequest | None
    ) -> Caller:
        if method.rule.access == _PROJECT_ACCESS:
            return Caller(CallerKind.API_KEY, self._project_id, baxstream=True)
        return Caller(CallerKind.ADMIN, None)

    def authorise(self, method: Method, caller: Caller, request: Message) -> None:
        """Everything may be asked for."""


@asynccontextmanager
async def open_local(
    project_id: str | None, *, with_worker: bool = False, may_create: bool = False
) -> AsyncIterator[LocalApi]:
    """The backend of this machine's settings. Raise Failed when there is none yet, unless it may be created."""
    settings = settings_from()
    configure_logging("warning" if settings.log_level == "info" else settings.log_level, console=True)
    if not may_create and settings.database_url is None and not _has_database(settings):
        raise Failed(
            f"there is no database in {settings.data_dir} yet: start `bax serve`, run `bax migrate`, "
            "or name a server with BAX_URL"
        )
    public_url = str(settings.public_url or f"http://{settings.http_host}:{settings.http_port}").rstrip("/")
    async with contextlib.AsyncExitStack() as stack:
        opening = opened_backend(settings, public_url=public_url, with_worker=with_worker)
        try:
            backend = await stack.enter_async_context(opening)
        except StartError as error:
            raise Failed(str(error)) from error
        if backend.started.new_api_key is not None:
            note(
                f"Set up {settings.data_dir}: project {backend.started.project_id}, "
                f"API key {backend.started.new_api_key} (shown this once)"
            )
        yield LocalApi(backend, project_id or backend.started.project_id)


def _has_database(settings: Settings) -> bool:
    return Path(settings.database.removeprefix("sqlite:///")).exists()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        raise Refused(error.rest_code, error.message) from error


def _call() -> CallInfo:
    return CallInfo("cli", f"cli_{secrets.token_hex(8)}", {})


def _tree(reply: Message) -> dict[str, Any]:
    tree: dict[str, Any] = REST_JSON.encode(reply)
    return tree


async def _parts(
    file: Path, options: conversion_pb.UploadOptions
) -> AsyncIterator[conversion_pb.UploadVideoRequest]:
    yield conversion_pb.UploadVideoRequest(options=options)
    with file.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            yield conversion_pb.UploadVideoRequest(chunk=chunk)
