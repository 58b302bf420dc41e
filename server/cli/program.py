"""All commands of `bax` in one program, and what its errors look like."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from server.cli import convert, doctor, jobs, keys, livekit, migrate, projects, record, secrets, serve
from server.cli.output import Failed, fail

app = typer.Typer(
    name="bax",
    help="Self-hosted backend for live and on-demand video.",
    no_args_is_help=True,
    # Plain help starts faster than a decorated one, and reads as well in a pipe.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("convert")(convert.convert)
app.command("record")(record.record)
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(projects.app, name="projects")
app.add_typer(secrets.app, name="secrets")
app.add_typer(livekit.app, name="livekit")
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"bax {version('baxcloud')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Self-hosted backend for live and on-demand video."""


def run() -> None:
    """Never returns."""
    try:
        app(prog_name="bax")
    except Failed as failed:
        sys.exit(fail(str(failed)))
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
