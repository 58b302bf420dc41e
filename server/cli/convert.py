"""`bax convert`: a file or URL becomes an HLS stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import storage_options as s3
from server.cli.output import Failed, note, print_fields, print_json

if TYPE_CHECKING:
    from generated.baxcloud.v1 import video_conversion_pb2 as pb
    from server.cli.api import Api


def convert(
    source: Annotated[
        str, typer.Argument(help="A video file, or the http(s) URL of one.", metavar="FILE|URL")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="360p, 480p, 720p or 1080p; repeat for several. [360p 480p 720p]"),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="FFmpeg preset, ultrafast to veryslow. [fast]")] = None,
    hls_time: Annotated[float | None, typer.Option(help="Segment length, 1 to 10 seconds. [2]")] = None,
    bucket: s3.Bucket = None,
    region: s3.Region = None,
    endpoint: s3.Endpoint = None,
    prefix: s3.Prefix = None,
    cdn_url: s3.CdnUrl = None,
    metadata: Annotated[str | None, typer.Option(help="Any JSON to keep with the job.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished job as JSON.")] = False,
) -> None:
    """Convert a video to adaptive HLS and wait for it.

    Uses the server at BAX_URL (with BAX_API_KEY and BAX_PROJECT_ID); without BAX_URL the job runs in this process.
    """
    from generated.baxcloud.v1 import video_conversion_pb2 as pb
    from server.cli.connection import server_url
    from server.services.messages import to_value

    if not _is_url(source) and not Path(source).is_file():
        raise Failed(f"{source}: there is no such file")
    options = pb.UploadOptions(
        output_formats=formats or (),
        ffmpeg_preset=preset,
        hls_time=hls_time,
        s3_config=s3.StorageOptions(bucket, region, endpoint, prefix, cdn_url).message(
            with_environment=server_url() is not None
        ),
    )
    if metadata is not None:
        options.metadata.CopyFrom(to_value(_parsed(metadata)))
    job = asyncio.run(_convert(source, options))
    if as_json:
        print_json(job)
    elif job["status"] == "COMPLETED":
        _show(job)
    if job["status"] != "COMPLETED":
        raise Failed(_why(job))


async def _convert(source: str, options: pb.UploadOptions) -> dict[str, Any]:
    from server.cli.progress import follow

    async with _converting_api() as api:
        job = await _submit(api, source, options)
        try:
            return await follow(api.watch(job["id"]), Path(source).name or source)
        except asyncio.CancelledError:
            await _abandon(api, job["id"])
            raise


@asynccontextmanager
async def _converting_api() -> AsyncIterator[Api]:
    from server.cli.connection import open_api, server_url

    if server_url() is not None:
        async with open_api(None) as api:
            yield api
        return
    from server.cli.local import open_local

    async with open_local(None, with_worker=True, may_create=True) as local:
        worker = local.backend.worker
        assert worker is not None
        await worker.start()
        try:
            yield local
        finally:
            await worker.drain(0)


async def _submit(api: Api, source: str, options: pb.UploadOptions) -> dict[str, Any]:
    from generated.baxcloud.v1 import video_conversion_pb2 as pb

    if _is_url(source):
        request = pb.CreateConversionJobRequest(input_url=source)
        # Both messages have these fields, under the same numbers from 2 on.
        request.MergeFromString(options.SerializeToString())
        return await api.call("VideoConversionService/CreateConversionJob", request)
    file = Path(source)
    options.filename = file.name
    return await api.upload(file, options)


async def _abandon(api: Api, job_id: str) -> None:
    """Ctrl-C: a job that has not begun is cancelled; one that runs on a server goes on, one that runs here stops."""
    from generated.baxcloud.v1 import video_conversion_pb2 as pb
    from server.cli.api import Refused
    from server.cli.connection import server_url

    if server_url() is None:
        from server.cli.local import LocalApi

        assert isinstance(api, LocalApi)
        assert api.backend.worker is not None
        await api.backend.worker.engine.drain(0)
    try:
        await api.call(
            "VideoConversionService/CancelConversionJob", pb.CancelConversionJobRequest(job_id=job_id)
        )
        note(f"cancelled job {job_id}")
    except Refused:
        note(f"job {job_id} goes on; follow it with `bax jobs watch {job_id}`")


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _parsed(metadata: str) -> Any:
    try:
        return json.loads(metadata)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint="--metadata") from error


def _show(job: dict[str, Any]) -> None:
    from server.cli.connection import server_url

    print_fields(
        {
            "job": job["id"],
            "master": job["outputUrl"],
            "thumbnail": job.get("thumbnailUrl"),
            "player": player_url(job["outputUrl"], server_url()),
            "duration": f"{job['durationSec']} s in {job['segmentsCount']} segments, {job['costCents']} cents",
        }
    )
    for warning in job.get("warnings", []):
        note(f"warning: {warning}")


def player_url(output_url: str, server: str | None) -> str:
    """The page of ours that plays a stream; without a known server the one that will serve the data directory."""
    from urllib.parse import quote, urlsplit

    parts = urlsplit(output_url)
    base = server or (f"{parts.scheme}://{parts.netloc}" if parts.path.startswith("/o/") else "")
    return f"{base}/player/?src={quote(output_url, safe='')}" if base else ""


def _why(job: dict[str, Any]) -> str:
    if job["status"] == "CANCELLED":
        return f"job {job['id']} was cancelled"
    return f"job {job['id']} failed: {job.get('errorMessage', '')} ({job.get('errorCode', '')})"
