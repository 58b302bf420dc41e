"""`bax projects`: projects, their storage and usage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import storage_options as s3
from server.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from google.protobuf.message import Message

app = typer.Typer(help="Projects: list, create, get, usage, s3.", no_args_is_help=True, rich_markup_mode=None)

ProjectId = Annotated[str, typer.Argument(help="The project's id.", metavar="PROJECT")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_projects(
    page: Annotated[int, typer.Option(help="Page, from 1.", min=1)] = 1,
    page_size: Annotated[int, typer.Option(help="Projects a page, up to 100.", min=1, max=100)] = 100,
    as_json: AsJson = False,
) -> None:
    """List all projects."""
    from generated.baxcloud.v1 import project_pb2 as pb

    found = asyncio.run(_call("ListProjects", pb.ListProjectsRequest(page=page, page_size=page_size)))
    if as_json:
        print_json(found)
        return
    print_table({"ID": "id", "NAME": "name", "CREATED": "createdAt"}, found["items"])
    print(f"{len(found['items'])} of {found['total']}")


@app.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    project_id: Annotated[str | None, typer.Option("--id", help="Its id; made up if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project; `bax keys create --project ID` gives it a key."""
    from generated.baxcloud.v1 import project_pb2 as pb

    made = asyncio.run(_call("CreateProject", pb.CreateProjectRequest(name=name, id=project_id)))
    print_json(made) if as_json else print(made["id"])


@app.command("get")
def get_project(project_id: ProjectId, as_json: AsJson = False) -> None:
    """Show a project: its plan and where its output goes."""
    from generated.baxcloud.v1 import project_pb2 as pb

    _show(asyncio.run(_call("GetProject", pb.GetProjectRequest(project_id=project_id))), as_json=as_json)


@app.command("usage")
def show_usage(project_id: ProjectId, as_json: AsJson = False) -> None:
    """Show what a project has used and what that costs."""
    from generated.baxcloud.v1 import project_pb2 as pb

    _show(asyncio.run(_call("GetUsage", pb.GetUsageRequest(project_id=project_id))), as_json=as_json)


@app.command("s3")
def set_s3(
    project_id: ProjectId,
    bucket: s3.Bucket = None,
    region: s3.Region = None,
    endpoint: s3.Endpoint = None,
    prefix: s3.Prefix = None,
    cdn_url: s3.CdnUrl = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the project's storage away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set where a project's output goes, replacing what was set before."""
    from generated.baxcloud.v1 import common_pb2
    from generated.baxcloud.v1 import project_pb2 as pb

    given = s3.StorageOptions(bucket, region, endpoint, prefix, cdn_url)
    if given.given is clear:
        raise typer.BadParameter("give either --bucket and what belongs to it, or --clear", param_hint="s3")
    config = common_pb2.S3Config() if clear else given.message(with_environment=False)
    request = pb.SetS3ConfigRequest(project_id=project_id, s3_config=config)
    _show(asyncio.run(_call("SetS3Config", request)), as_json=as_json)


async def _call(method: str, request: Message) -> dict[str, Any]:
    from server.cli.connection import open_admin_api

    async with open_admin_api() as api:
        return await api.call(f"ProjectService/{method}", request)


def _show(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)
