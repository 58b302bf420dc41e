"""What commands call: the API as they see it, whichever way the calls go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
