"""`bax` as a program: help, usage errors, exit statuses, what it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Bax
from tests.servers.bax import ROOT

COMMANDS = (
    ("serve",),
    ("convert",),
    ("jobs",),
    ("jobs", "list"),
    ("jobs", "get"),
    ("jobs", "watch"),
    ("jobs", "cancel"),
    ("keys",),
    ("keys", "list"),
    ("keys", "create"),
    ("keys", "revoke"),
    ("projects",),
    ("projects", "list"),
    ("projects", "create"),
    ("projects", "get"),
    ("projects", "usage"),
    ("projects", "s3"),
    ("secrets",),
    ("secrets", "new"),
    ("secrets", "rotate"),
    ("livekit",),
    ("livekit", "install"),
    ("livekit", "status"),
    ("doctor",),
    ("migrate",),
)
# What only some commands need; loading it for `--help` would take longer than everything else.
HEAVY = (
    "aiohttp",
    "alembic",
    "av",
    "boto3",
    "google.protobuf",
    "grpc",
    "pydantic_settings",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "uvicorn",
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    from typer.testing import CliRunner

    from server.cli.program import app

    shown = CliRunner().invoke(app, [*command, "--help"])

    assert shown.exit_code == 0
    assert shown.output.startswith(f"Usage: bax {' '.join(command)}")
    explained = [line for line in shown.output.splitlines()[1:] if line.strip()]
    assert not explained[0].startswith("Options")


def test_the_program_lists_its_commands(bax: Bax) -> None:
    shown = bax("--help")

    assert shown.returncode == 0
    for command in (
        "serve",
        "convert",
        "jobs",
        "keys",
        "projects",
        "secrets",
        "livekit",
        "doctor",
        "migrate",
    ):
        assert f"\n  {command} " in shown.stdout


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; import server.cli.program; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert set(done.stdout.split()) & set(HEAVY) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("convert",),
        ("jobs", "list", "--page", "0"),
        ("jobs", "list", "--status", "ODD"),
        ("serve", "--role", "everything"),
        ("serve", "--http-port", "70000"),
        ("projects", "s3", "cl_default"),
        ("convert", __file__, "--metadata", "{not json"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_on_stderr(bax: Bax, arguments: tuple[str, ...]) -> None:
    done = bax(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: bax" in done.stderr


def test_version(bax: Bax) -> None:
    assert bax("--version").stdout.startswith("bax ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`bax … | head -1` ends without a traceback."""
    command = f"{sys.executable} -c 'from server.cli import main; main()' doctor --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert "Traceback" not in done.stderr
