"""`bax serve`: run the server."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli.output import Failed

if TYPE_CHECKING:
    from server.serve import Announcement


def serve(
    role: Annotated[
        Literal["all", "api", "worker"],
        typer.Option(help="all: everything; api: calls only; worker: jobs, webhooks and housekeeping only."),
    ] = "all",
    http_host: Annotated[
        str | None, typer.Option(help="Address to listen on. [BAX_HTTP_HOST, 127.0.0.1]", show_default=False)
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(help="Port of HTTP, 0 for a free one. [BAX_HTTP_PORT, 8080]", min=0, max=65535),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(help="Port of gRPC, 0 for a free one. [BAX_GRPC_PORT, 50051]", min=0, max=65535),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the embedded state. [BAX_DATA_DIR, .bax]", file_okay=False)
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    The first one lets running calls and jobs end (BAX_DRAIN_GRACE_SEC), a second one ends the process at once.
    """
    _quiet_grpc()
    from server.cli.configuration import settings_from
    from server.http_server import ListenError
    from server.observability.logging import configure_logging
    from server.serve import Role
    from server.serve import serve as run
    from server.start import StartError

    settings = settings_from(http_host=http_host, http_port=http_port, grpc_port=grpc_port, data_dir=data_dir)
    configure_logging(settings.log_level, console=sys.stderr.isatty())
    # What it says of each step is of interest only while migrations are written.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        run(settings, Role(role), _announce)
    except (ListenError, StartError) as error:
        raise Failed(str(error)) from error


def _quiet_grpc() -> None:
    # Read by the gRPC library when it is loaded. FFmpeg is started by exec, so fork handlers do nothing but log.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _announce(ready: Announcement) -> None:
    lines = [f"BaxCloud is ready (role {ready.role.value}, data in {ready.data_dir})"]
    if ready.http_url is not None:
        lines.append(f"  HTTP         {ready.http_url}")
    if ready.grpc_address is not None:
        lines += [
            f"  gRPC         {ready.grpc_address}",
            f"  API docs     {ready.http_url}/docs",
            f"  player       {ready.http_url}/player/",
        ]
    if ready.admin_token_file is not None:
        lines.append(f"  admin token  in {ready.admin_token_file}")
    if ready.new_api_key is not None:
        lines += [
            f"  project      {ready.project_id}",
            f"  API key      {ready.new_api_key}   (shown this once; `bax keys create` makes another)",
        ]
    print("\n".join(lines), flush=True)
