"""The generated gRPC and Twirp clients against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twirp.exceptions import TwirpServerException

from generated.baxcloud.v1 import project_pb2, webhook_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from generated.baxcloud.v1.project_twirp import AsyncProjectServiceClient
from generated.baxcloud.v1.video_conversion_pb2_grpc import VideoConversionServiceStub
from generated.baxcloud.v1.video_conversion_twirp import AsyncVideoConversionServiceClient
from generated.baxcloud.v1.webhook_twirp import AsyncWebhookServiceClient
from server.rpc.json_codec import REST_JSON
from tests.e2e.conftest import Source
from tests.servers.bax import ADMIN_TOKEN, PROJECT, BaxServer

pytestmark = pytest.mark.xdist_group("e2e")

COMPLETED = pb.ConversionJob.Status.COMPLETED


@pytest.fixture
async def channel(server: BaxServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.grpc_address) as opened:
        yield opened


async def test_upload_and_watch_over_grpc(server: BaxServer, channel: grpc.aio.Channel, clip: Path) -> None:
    """Client streaming to disk, server streaming until the job has ended; REST shows the same job."""
    stub = VideoConversionServiceStub(channel)
    metadata = tuple(server.headers.items())

    async def parts() -> AsyncIterator[pb.UploadVideoRequest]:
        yield pb.UploadVideoRequest(options=pb.UploadOptions(filename="a.mp4", output_formats=["360p"]))
        data = clip.read_bytes()
        for start in range(0, len(data), 65536):
            yield pb.UploadVideoRequest(chunk=data[start : start + 65536])

    created = await stub.UploadVideo(parts(), metadata=metadata)
    request = pb.WatchConversionJobRequest(job_id=created.id)
    seen = [job async for job in stub.WatchConversionJob(request, metadata=metadata)]

    assert seen[-1].status == COMPLETED
    assert REST_JSON.encode(seen[-1]) == server.call("GET", f"/video/jobs/{created.id}").json


async def test_grpc_health_is_serving(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "baxcloud.v1.VideoConversionService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_errors_carry_the_same_text_as_rest(server: BaxServer, channel: grpc.aio.Channel) -> None:
    stub = VideoConversionServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetConversionJob(
            pb.GetConversionJobRequest(job_id="cm_nothing"), metadata=tuple(server.headers.items())
        )

    rest = server.call("GET", "/video/jobs/cm_nothing").json
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == rest["error"]["message"]


async def test_convert_over_twirp(server: BaxServer, source: Source) -> None:
    async with AsyncVideoConversionServiceClient(server.url) as client:
        request = pb.CreateConversionJobRequest(input_url=source.url, output_formats=["360p"])
        created = await client.CreateConversionJob(request, headers=server.headers)
        server.finished(created.id)
        job = await client.GetConversionJob(
            pb.GetConversionJobRequest(job_id=created.id), headers=server.headers
        )
        with pytest.raises(TwirpServerException) as refused:
            await client.GetConversionJob(
                pb.GetConversionJobRequest(job_id="cm_nothing"), headers=server.headers
            )

    assert job.status == COMPLETED
    assert REST_JSON.encode(job) == server.call("GET", f"/video/jobs/{created.id}").json
    assert refused.value.code.value == "not_found"


async def test_twirp_json(server: BaxServer) -> None:
    """Snake case, defaults shown, as LiveKit's Twirp answers."""
    url = f"{server.url}/twirp/baxcloud.v1.VideoConversionService/ListConversionJobs"
    async with (
        aiohttp.ClientSession(headers=server.headers) as http,
        http.post(url, json={"page_size": 1}) as answer,
    ):
        listed = await answer.json()

    assert answer.status == 200
    assert listed["page_size"] == 1


async def test_projects_are_apart(server: BaxServer) -> None:
    """A key of another project sees nothing of ours, and a revoked one sees nothing at all."""
    admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    async with AsyncProjectServiceClient(server.url) as projects:
        other = await projects.CreateProject(project_pb2.CreateProjectRequest(name="other"), headers=admin)
        key = await projects.CreateApiKey(
            project_pb2.CreateApiKeyRequest(project_id=other.id, name="k", baxstream=True), headers=admin
        )
        theirs = {"authorization": f"Bearer {key.key}", "x-project-id": other.id}
        async with AsyncWebhookServiceClient(server.url) as webhooks:
            ours = await webhooks.CreateWebhook(
                webhook_pb2.CreateWebhookRequest(url=f"{server.url}/hook", events=["moderation.*"]),
                headers=server.headers,
            )
            foreign = server.call("GET", f"/v1/webhooks/{ours.id}", headers=theirs)
            listed = server.call("GET", "/v1/webhooks", headers=theirs)
            await webhooks.DeleteWebhook(
                webhook_pb2.DeleteWebhookRequest(webhook_id=ours.id), headers=server.headers
            )
        await projects.RevokeApiKey(
            project_pb2.RevokeApiKeyRequest(project_id=other.id, key_id=key.id), headers=admin
        )

    assert foreign.status == 404
    assert listed.json["items"] == []
    assert server.call("GET", "/video/jobs", headers=theirs).status == 401
    assert server.call("GET", f"/v1/projects/{PROJECT}", headers=admin).json["id"] == PROJECT
