"""`bax keys`: API keys of a project."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer

from server.cli.output import print_json, print_table

app = typer.Typer(help="API keys: list, create, revoke.", no_args_is_help=True, rich_markup_mode=None)

Project = Annotated[
    str | None,
    typer.Option("--project", help="Project of the keys. [BAX_PROJECT_ID, cl_default]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_keys(project: Project = None, as_json: AsJson = False) -> None:
    """List the keys of a project, without their secrets."""
    from generated.baxcloud.v1 import project_pb2 as pb

    found = asyncio.run(_call("ListApiKeys", lambda id_: pb.ListApiKeysRequest(project_id=id_), project))
    if as_json:
        print_json(found)
        return
    columns = {
        "ID": "id",
        "NAME": "name",
        "BAXSTREAM": "baxstream",
        "CREATED": "createdAt",
        "LAST USED": "lastUsedAt",
        "REVOKED": "revokedAt",
    }
    print_table(columns, found["items"])


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    baxstream: Annotated[
        bool, typer.Option(help="Whether it may convert, categorize and moderate video.")
    ] = True,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it is never shown again."""
    from generated.baxcloud.v1 import project_pb2 as pb

    key = asyncio.run(
        _call(
            "CreateApiKey",
            lambda id_: pb.CreateApiKeyRequest(project_id=id_, name=name, baxstream=baxstream),
            project,
        )
    )
    print_json(key) if as_json else print(key["key"])


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_….", metavar="KEY")],
    project: Project = None,
) -> None:
    """Revoke a key by its id."""
    from generated.baxcloud.v1 import project_pb2 as pb

    asyncio.run(
        _call("RevokeApiKey", lambda id_: pb.RevokeApiKeyRequest(project_id=id_, key_id=key_id), project)
    )
    print(f"revoked {key_id}")


async def _call(method: str, request: Any, project: str | None) -> dict[str, Any]:
    from server.cli.connection import open_admin_api

    async with open_admin_api() as api:
        chosen = project or os.environ.get("BAX_PROJECT_ID") or api.project_id or "cl_default"
        return await api.call(f"ProjectService/{method}", request(chosen))
