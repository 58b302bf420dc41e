"""A whole backend in this process, its database and data directory in a temporary folder, without transports."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generated.baxcloud.v1 import project_pb2, webhook_pb2
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from server.app import Backend, open_backend
from server.context import CallContext, Caller, CallerKind
from server.domain.project import Usage
from server.ground import Patience
from server.ids import ProjectId
from server.services.conversions import VideoConversions
from server.services.projects import Projects
from server.services.webhooks import WebhookService
from server.settings import load_settings
from tests.conftest import Eventually
from tests.integration.http_sources import Request, Respond, serve
from tests.sinks import Sink

PUBLIC_URL = "http://bax.test"


@dataclass
class Stage:
    """What a test calls: services as a project's key would reach them, and the files they leave."""

    backend: Backend
    eventually: Eventually
    project_id: ProjectId
    sinks: list[Sink] = field(default_factory=list)

    @property
    def conversions(self) -> VideoConversions:
        service = self.backend.services["VideoConversionService"]
        assert isinstance(service, VideoConversions)
        return service

    @property
    def projects(self) -> Projects:
        service = self.backend.services["ProjectService"]
        assert isinstance(service, Projects)
        return service

    @property
    def data_dir(self) -> Path:
        return self.backend.settings.data_dir

    def context(self, project_id: str | None = None) -> CallContext:
        caller = Caller(CallerKind.API_KEY, ProjectId(project_id or self.project_id), baxstream=True)
        return CallContext("test", "test", "request", caller, {})

    async def convert(self, url: str, **fields: Any) -> pb.ConversionJob:
        fields = {"output_formats": ["360p"], "ffmpeg_preset": "ultrafast"} | fields
        request = pb.CreateConversionJobRequest(input_url=url, **fields)
        return await self.conversions.create_conversion_job(request, self.context())

    async def upload(self, source: Path, **fields: Any) -> pb.ConversionJob:
        fields = {"filename": source.name, "output_formats": ["360p"], "ffmpeg_preset": "ultrafast"} | fields

        async def parts() -> AsyncIterator[pb.UploadVideoRequest]:
            yield pb.UploadVideoRequest(chunk=source.read_bytes())
            yield pb.UploadVideoRequest(options=pb.UploadOptions(**fields))

        return await self.conversions.upload_video(parts(), self.context())

    async def get(self, job_id: str) -> pb.ConversionJob:
        return await self.conversions.get_conversion_job(
            pb.GetConversionJobRequest(job_id=job_id), self.context()
        )

    async def watch(self, job: pb.ConversionJob) -> list[pb.ConversionJob]:
        """Every state that a watcher sees, the final one last."""
        request = pb.WatchConversionJobRequest(job_id=job.id)
        return [seen async for seen in self.conversions.watch_conversion_job(request, self.context())]

    async def finish(self, job: pb.ConversionJob) -> pb.ConversionJob:
        return (await self.watch(job))[-1]

    async def usage(self) -> Usage:
        async with self.backend.database.read() as tx:
            return await tx.projects.usage(self.project_id)

    async def set_s3(self, **fields: str) -> None:
        request = project_pb2.SetS3ConfigRequest(project_id=self.project_id, s3_config=fields)
        await self.projects.set_s3_config(
            request, CallContext("t", "t", "r", Caller(CallerKind.ADMIN, None), {})
        )

    def objects(self, job: pb.ConversionJob) -> dict[str, Path]:
        """Key → file of everything a job has put into the data directory."""
        folder = self.data_dir / "objects" / job.project_id / job.id
        return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def local_files(self) -> list[Path]:
        """Uploads and work files that are still there."""
        folders = (self.data_dir / "uploads", self.data_dir / "work")
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    async def listen(self, events: Sequence[str] = ("*",)) -> Sink:
        sink = Sink()
        await sink.__aenter__()
        self.sinks.append(sink)
        webhooks = self.backend.services["WebhookService"]
        assert isinstance(webhooks, WebhookService)
        request = webhook_pb2.CreateWebhookRequest(url=sink.url, events=events)
        await webhooks.create_webhook(request, self.context())
        return sink

    async def start_worker(self) -> None:
        assert self.backend.worker is not None
        await self.backend.worker.start()


@asynccontextmanager
async def backend_stage(
    data_dir: Path,
    eventually: Eventually,
    *,
    work: bool = True,
    patience: Patience | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """`work` False leaves jobs PENDING until `start_worker`."""
    values = {"data_dir": data_dir, "allow_private_urls": True, "conversion_concurrency": 1} | settings
    async with open_backend(
        load_settings(**values), public_url=PUBLIC_URL, with_worker=True, patience=patience
    ) as backend:
        stage = Stage(backend, eventually, backend.started.project_id)
        assert backend.worker is not None
        if work:
            await stage.start_worker()
        try:
            yield stage
        finally:
            await backend.worker.drain(0.0)
            for sink in stage.sinks:
                await sink.__aexit__(None, None, None)


def events_of(sink: Sink) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in sink.received]


def serving_file(path: Path) -> Respond:
    async def respond(request: Request) -> None:
        await request.answer(200, path.read_bytes())

    return respond


def answering(status: int, body: bytes = b"") -> Respond:
    async def respond(request: Request) -> None:
        await request.answer(status, body)

    return respond


@asynccontextmanager
async def source(respond: Respond) -> AsyncIterator[str]:
    """The URL of a loopback source and nothing else."""
    async with serve(respond, host="127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.port}/clip.mp4?token=hidden"
