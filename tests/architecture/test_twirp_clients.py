"""The generated Twirp server and clients talk to each other over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from google.protobuf.message import Message
from starlette.responses import PlainTextResponse
from twirp.asgi import TwirpASGIApp
from twirp.context import Context
from twirp.errors import Errors
from twirp.exceptions import TwirpServerException

from generated.baxcloud.v1 import project_pb2, project_twirp
from tools.protoc_plugin import snake_case

SERVICE = project_pb2.DESCRIPTOR.services_by_name["ProjectService"]


class Projects:
    """Answers one method and refuses every other."""

    async def get_project(self, request: project_pb2.GetProjectRequest, ctx: Context) -> project_pb2.Project:
        if request.project_id == "missing":
            raise TwirpServerException(code=Errors.NotFound, message="no such project", meta={"field": "id"})
        return project_pb2.Project(id=request.project_id)


async def _unimplemented(self: Projects, request: Message, ctx: Context) -> Message:
    raise TwirpServerException(code=Errors.Unimplemented, message="not here")


for _method in SERVICE.methods:
    if not hasattr(Projects, snake_case(_method.name)):
        setattr(Projects, snake_case(_method.name), _unimplemented)


@contextlib.asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="error"))
    listener = server.config.bind_socket()
    listener.listen()  # connections queue from here on, whenever the server task gets its turn
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def address() -> AsyncIterator[str]:
    app = TwirpASGIApp()
    app.add_service(project_twirp.ProjectServiceServer(service=Projects()))
    async with serve(app) as url:
        yield url


async def test_asyncio_client(address: str) -> None:
    async with project_twirp.AsyncProjectServiceClient(address) as client:
        project = await client.GetProject(project_pb2.GetProjectRequest(project_id="p1"))

    assert project.id == "p1"


async def test_blocking_client(address: str) -> None:
    client = project_twirp.ProjectServiceClient(address)
    request = project_pb2.GetProjectRequest(project_id="p2")

    project = await asyncio.to_thread(client.GetProject, request, headers={"X-Test": "1"}, timeout=5.0)

    assert project.id == "p2"


async def test_errors_keep_code_message_and_meta(address: str) -> None:
    async with project_twirp.AsyncProjectServiceClient(address) as client:
        with pytest.raises(TwirpServerException) as caught:
            await client.GetProject(project_pb2.GetProjectRequest(project_id="missing"))

    assert (caught.value.code, caught.value.message) == (Errors.NotFound, "no such project")
    assert caught.value.meta == {"field": "id"}


async def test_a_proxy_s_own_answer_becomes_an_error() -> None:
    proxy = PlainTextResponse("<html>bad gateway</html>", status_code=502)
    async with serve(proxy) as address, project_twirp.AsyncProjectServiceClient(address) as client:
        with pytest.raises(TwirpServerException) as caught:
            await client.GetProject(project_pb2.GetProjectRequest(project_id="p"))

    assert caught.value.code == Errors.Unavailable
    assert caught.value.meta["status_code"] == "502"


async def test_nobody_listening_is_unavailable() -> None:
    async with serve(PlainTextResponse("")) as address:
        pass
    async with project_twirp.AsyncProjectServiceClient(address) as client:
        with pytest.raises(TwirpServerException) as caught:
            await client.GetProject(project_pb2.GetProjectRequest(project_id="p"))

    assert caught.value.code == Errors.Unavailable
