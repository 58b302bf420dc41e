"""`bax jobs`: list, look at, follow and cancel conversion jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.output import Failed, print_fields, print_json, print_table

if TYPE_CHECKING:
    from server.cli.api import Api

app = typer.Typer(
    help="Conversion jobs: list, get, watch, cancel.", no_args_is_help=True, rich_markup_mode=None
)

JobId = Annotated[str, typer.Argument(help="The job's id, cm….", metavar="JOB")]
Project = Annotated[
    str | None, typer.Option("--project", help="Project to act in. [BAX_PROJECT_ID]", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_STATUSES = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")
_SHOWN = {
    "job": "id",
    "status": "status",
    "source": "inputUrl",
    "formats": "outputFormats",
    "master": "outputUrl",
    "thumbnail": "thumbnailUrl",
    "seconds": "durationSec",
    "cents": "costCents",
    "progress": "progress",
    "error": "errorCode",
    "message": "errorMessage",
    "warnings": "warnings",
    "metadata": "metadata",
    "created": "createdAt",
    "started": "startedAt",
    "playable": "playableAt",
    "completed": "completedAt",
    "failed": "failedAt",
}


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(_STATUSES)}.")] = None,
    page: Annotated[int, typer.Option(help="Page, from 1.", min=1)] = 1,
    page_size: Annotated[int, typer.Option(help="Jobs a page, up to 100.", min=1, max=100)] = 20,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    from generated.baxcloud.v1 import video_conversion_pb2 as pb

    if status is not None and status.upper() not in _STATUSES:
        raise typer.BadParameter(f"must be one of {', '.join(_STATUSES)}", param_hint="--status")
    request = pb.ListConversionJobsRequest(
        page=page, page_size=page_size, status=status.upper() if status else None
    )
    found = asyncio.run(_call(project, "ListConversionJobs", request))
    if as_json:
        print_json(found)
        return
    columns = {
        "JOB": "id",
        "STATUS": "status",
        "PERCENT": "percent",
        "CREATED": "createdAt",
        "SOURCE": "inputUrl",
    }
    print_table(
        columns, [{**job, "percent": job.get("progress", {}).get("percent")} for job in found["items"]]
    )
    print(f"{len(found['items'])} of {found['total']}")


@app.command("get")
def get_job(job_id: JobId, project: Project = None, as_json: AsJson = False) -> None:
    """Show one job."""
    from generated.baxcloud.v1 import video_conversion_pb2 as pb

    job = asyncio.run(_call(project, "GetConversionJob", pb.GetConversionJobRequest(job_id=job_id)))
    _show(job, as_json=as_json)


@app.command("watch")
def watch_job(job_id: JobId, project: Project = None, as_json: AsJson = False) -> None:
    """Follow a job until it ends; the exit status is 1 unless it completes."""
    job = asyncio.run(_watch(project, job_id))
    _show(job, as_json=as_json)
    if job["status"] != "COMPLETED":
        raise Failed(f"job {job_id} is {job['status']}")


@app.command("cancel")
def cancel_job(job_id: JobId, project: Project = None) -> None:
    """Cancel a job that is still PENDING."""
    from generated.baxcloud.v1 import video_conversion_pb2 as pb

    asyncio.run(_call(project, "CancelConversionJob", pb.CancelConversionJobRequest(job_id=job_id)))
    print(f"cancelled {job_id}")


async def _call(project: str | None, method: str, request: Any) -> dict[str, Any]:
    from server.cli.connection import open_api

    async with open_api(project) as api:
        return await api.call(f"VideoConversionService/{method}", request)


async def _watch(project: str | None, job_id: str) -> dict[str, Any]:
    from server.cli.connection import open_api
    from server.cli.progress import follow

    api: Api
    async with open_api(project) as api:
        return await follow(api.watch(job_id), job_id)


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_fields({name: job.get(key) for name, key in _SHOWN.items()})
