"""Calls to a server over REST, and its events as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from generated.baxcloud.v1 import video_conversion_pb2 as conversion_pb
from server.cli.api import CHUNK_BYTES, Refused, Server, find_method
from server.cli.output import Failed

_CONNECT_SEC = 10.0
_CALL_SEC = 60.0
# The server sends a comment every 15 s.
_SILENCE_SEC = 45.0
_RECONNECTS = 5
_VARIABLE = re.compile(r"\{(\w+)\}")


class RemoteApi:
    """Implements `Api`."""

    def __init__(self, http: aiohttp.ClientSession, server: Server) -> None:
        self._http = http
        self._server = server
        self.project_id = server.project_id

    async def call(self, method: str, request: Message) -> dict[str, Any]:
        route = find_method(method).route
        assert route is not None
        fields: dict[str, Any] = MessageToDict(request)
        path = _VARIABLE.sub(
            lambda name: quote(str(fields.pop(_camel(name[1]), "")), safe=""), route.template
        )
        body = fields if route.body == "*" else fields.get(_camel(route.body)) if route.body else None
        query = {name: str(value) for name, value in fields.items()} if body is None else {}
        with self._failures():
            async with self._http.request(route.verb, self._url(path), json=body, params=query) as answer:
                return await _result(answer)

    async def upload(self, file: Path, options: conversion_pb.UploadOptions) -> dict[str, Any]:
        with self._failures(), file.open("rb") as source:
            form = aiohttp.FormData()
            for name, value in MessageToDict(options).items():
                if name != "filename":
                    form.add_field(name, value if isinstance(value, str) else json.dumps(value))
            form.add_field("video", source, filename=options.filename or file.name)
            url = self._url("/video/upload")
            # As long as bytes flow an upload may take its time.
            patience = aiohttp.ClientTimeout(sock_connect=_CONNECT_SEC, sock_read=None, total=None)
            async with self._http.post(url, data=form, timeout=patience) as answer:
                return await _result(answer)

    async def watch(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """Survives a restart of the server: each connection begins with the job as it is."""
        left = _RECONNECTS
        while True:
            job: dict[str, Any] = {}
            try:
                async for job in self._events(job_id):
                    left = _RECONNECTS
                    yield job
            except (Failed, aiohttp.ClientError, TimeoutError) as fault:
                passing = not isinstance(fault, Refused) or fault.code == "UNAVAILABLE"
                if left == 0 or not passing:
                    with self._failures():
                        raise
            if job.get("status") in ("COMPLETED", "FAILED", "CANCELLED"):
                return
            left -= 1
            await asyncio.sleep(1.0)

    async def _events(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        url = self._url(f"/video/jobs/{quote(job_id, safe='')}/events")
        patience = aiohttp.ClientTimeout(sock_connect=_CONNECT_SEC, sock_read=_SILENCE_SEC, total=None)
        async with self._http.get(url, timeout=patience, headers={"accept": "text/event-stream"}) as answer:
            if answer.status != 200:
                await _result(answer)
            event = ""
            async for raw in answer.content:
                line = raw.decode(errors="replace").rstrip("\n")
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    data = json.loads(line[6:])
                    if event == "error":
                        raise _refusal(data, answer.status)
                    yield data

    def _url(self, path: str) -> str:
        return self._server.url + path

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError) as fault:
            reason = "it did not answer in time" if isinstance(fault, TimeoutError) else str(fault)
            raise Failed(f"no answer from {self._server.url}: {reason}") from fault


@asynccontextmanager
async def open_remote(server: Server) -> AsyncIterator[RemoteApi]:
    headers = {"authorization": f"Bearer {server.token}"}
    if server.project_id:
        headers["x-project-id"] = server.project_id
    patience = aiohttp.ClientTimeout(sock_connect=_CONNECT_SEC, total=_CALL_SEC)
    async with aiohttp.ClientSession(
        headers=headers, timeout=patience, read_bufsize=CHUNK_BYTES, trust_env=True
    ) as http:
        yield RemoteApi(http, server)


async def _result(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body = await answer.read()
    try:
        tree = json.loads(body) if body else {}
    except ValueError:
        tree = None
    if not isinstance(tree, dict) or answer.status >= 400:
        raise _refusal(tree, answer.status)
    return tree


def _refusal(tree: Any, status: int) -> Refused:
    error = tree.get("error") if isinstance(tree, dict) else None
    if not isinstance(error, dict):
        # What a proxy says while the server behind it restarts.
        code = "UNAVAILABLE" if status in (502, 503, 504) else "UNKNOWN"
        return Refused(code, f"the server answered {status}; is BAX_URL a BaxCloud server?")
    return Refused(str(error.get("code", "")), str(error.get("message", "")))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
