"""Where a command's calls go: to the server at BAX_URL, or to the services in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from server.cli.output import Failed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from generated.baxcloud.v1 import video_conversion_pb2 as conversion_pb
    from server.rpc.registry import Binding

CHUNK_BYTES = 1024 * 1024


class Refused(Failed):
    """The API refused a call: its `code` as on REST, its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api(Protocol):
    """Calls by `Service/Method`; replies are the JSON of REST. All raise Refused, and Failed without an answer."""

    project_id: str

    async def call(self, method: str, request: Message) -> dict[str, Any]: ...
    async def upload(self, file: Path, options: conversion_pb.UploadOptions) -> dict[str, Any]: ...
    def watch(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """A conversion job whenever it changes, the last time when it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to; `token` is an API key or the admin token."""

    url: str
    token: str = field(repr=False)
    project_id: str


@dataclass(frozen=True, slots=True)
class FoundMethod:
    """A method of our protos: `package.Service/Method` and its first REST route, None without one."""

    full_name: str
    route: Binding | None


def server_url() -> str | None:
    """BAX_URL without its trailing slash; None means this process. Raise Failed for what is no address."""
    given = os.environ.get("BAX_URL", "").rstrip("/")
    if not given:
        return None
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        # Not repeated: it may hold a password.
        raise Failed("BAX_URL must be an http or https address, without user name and query")
    return given


def open_api(project_id: str | None) -> AbstractAsyncContextManager[Api]:
    """For calls within a project: BAX_API_KEY and BAX_PROJECT_ID at a server, else the operator of this machine."""
    url = server_url()
    if url is None:
        from server.cli.local import open_local

        return open_local(project_id or os.environ.get("BAX_PROJECT_ID"))
    from server.cli.remote import open_remote

    project = project_id or _needed("BAX_PROJECT_ID", "the project to act in")
    return open_remote(Server(url, _needed("BAX_API_KEY", "an API key of the project"), project))


def open_admin_api() -> AbstractAsyncContextManager[Api]:
    """For the operator's calls: BAX_ADMIN_TOKEN at a server, else the operator of this machine."""
    url = server_url()
    if url is None:
        from server.cli.local import open_local

        return open_local(None)
    from server.cli.remote import open_remote

    return open_remote(Server(url, _needed("BAX_ADMIN_TOKEN", "the server's admin token"), ""))


def find_method(name: str) -> FoundMethod:
    """`Service/Method` in our protos."""
    from server.rpc.registry import OWN_FILES, bindings_of

    service, _, method = name.partition("/")
    for file in OWN_FILES:
        if service in file.services_by_name:
            descriptor = file.services_by_name[service].methods_by_name[method]
            return FoundMethod(
                f"{descriptor.containing_service.full_name}/{method}",
                next(iter(bindings_of(descriptor)), None),
            )
    raise LookupError(name)


def _needed(variable: str, what: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise Failed(f"{variable} is needed with BAX_URL: {what}")
    return value
