"""The operator's commands on this machine: doctor, migrate, projects, keys and secrets."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from server.cli.checks import run_checks
from tests.cli.conftest import Bax


def test_doctor_finds_what_is_needed(bax: Bax) -> None:
    done = bax("doctor", "--json")

    found = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert done.returncode == 0
    assert found["ok"] is True
    assert {
        "python",
        "settings",
        "ffmpeg",
        "pyav",
        "data directory",
        "free disk",
        "database",
    } <= checks.keys()
    assert {
        "hls.js",
        "livekit-client",
        "livekit-server",
        "vision models",
        "node",
        "go",
        "postgres",
        "chromium",
    } <= checks.keys()
    assert all(check["ok"] or check["remedy"] for check in checks.values())


def test_doctor_names_what_is_missing(bax: Bax) -> None:
    """Exit status 1 only because of what the server cannot do without."""
    done = bax("doctor", ffmpeg="/nowhere/ffmpeg", database_url="mysql://x", typo="1")

    assert done.returncode == 1
    assert re.search(r"MISSING +ffmpeg +BAX_FFMPEG names /nowhere/ffmpeg", done.stdout) or re.search(
        r"MISSING +settings +unknown setting BAX_TYPO", done.stdout
    )
    done = bax("doctor", ffmpeg="/nowhere/ffmpeg", database_url="mysql://user:sesame@x/y")
    assert re.search(r"MISSING +ffmpeg +BAX_FFMPEG names /nowhere/ffmpeg", done.stdout)
    assert re.search(r"MISSING +database +unknown kind of database", done.stdout)
    assert "get it: pip install imageio-ffmpeg" in done.stdout
    assert "sesame" not in done.stdout + done.stderr


def test_doctor_finds_a_script_of_the_pages_that_is_missing_or_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "hls.min.js").write_bytes(b"!" * 1000)
    monkeypatch.setattr("server.cli.checks._WEB", tmp_path)

    found = {check.name: check for check in run_checks() if check.name in ("hls.js", "livekit-client")}

    assert [(name, check.ok, check.remedy) for name, check in found.items()] == [
        ("hls.js", False, "make setup"),
        ("livekit-client", False, "make setup"),
    ]
    assert "cut short: 1000 bytes" in found["hls.js"].detail
    assert found["livekit-client"].detail == "for the join page"


def test_doctor_sees_a_database_that_is_away(bax: Bax) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = bax("doctor", database_url=f"postgresql://user:sesame@127.0.0.1:{port}/x")

    assert done.returncode == 1
    assert re.search(r"MISSING +database +cannot be reached", done.stdout)
    assert "sesame" not in done.stdout + done.stderr


def test_migrate_makes_the_tables(bax: Bax, data_dir: Path) -> None:
    done = bax("migrate")

    assert (done.returncode, done.stdout) == (0, "the database is up to date\n")
    assert (data_dir / "baxcloud.db").exists()
    assert bax("migrate").returncode == 0
    schema = next(c for c in json.loads(bax("doctor", "--json").stdout)["checks"] if c["name"] == "database")
    assert "up to date" in schema["detail"]


def test_migrate_without_its_database_is_one_line(bax: Bax) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = bax("migrate", database_url=f"postgresql://u:sesame@127.0.0.1:{unused.getsockname()[1]}/x")

    assert (done.returncode, done.stderr) == (1, "bax: the database is unavailable\n")


def test_nothing_is_made_where_there_is_nothing(bax: Bax, data_dir: Path) -> None:
    for command in (("jobs", "list"), ("keys", "list"), ("projects", "list")):
        done = bax(*command)
        assert done.returncode == 1
        assert "there is no database in" in done.stderr
    assert list(data_dir.iterdir()) == []


def test_projects_and_keys(bax: Bax) -> None:
    """GN-09, GN-24: a key is shown once when it is made, also where another command than `serve` set up the data."""
    bax("migrate")

    made = bax("projects", "create", "Films", "--id", "cl_films", "--json")
    assert json.loads(made.stdout)["id"] == "cl_films"
    assert re.search(r"API key bax_[A-Za-z0-9]{40} \(shown this once\)", made.stderr)
    key = bax("keys", "create", "uploader", "--project", "cl_films")
    assert re.fullmatch(r"bax_[A-Za-z0-9]{40}\n", key.stdout)
    assert key.stderr == ""
    listed = json.loads(bax("keys", "list", "--project", "cl_films", "--json").stdout)["items"]
    assert [(item["name"], item["baxstream"]) for item in listed] == [("uploader", True)]
    assert key.stdout.strip() not in json.dumps(listed)
    assert bax("keys", "revoke", listed[0]["id"], "--project", "cl_films").returncode == 0
    again = json.loads(bax("keys", "list", "--project", "cl_films", "--json").stdout)["items"]
    assert "revokedAt" in again[0]
    projects = bax("projects", "list").stdout
    assert "cl_films" in projects
    assert "2 of 2" in projects
    assert json.loads(bax("projects", "usage", "cl_films", "--json").stdout)["conversionJobs"] == 0


def test_what_is_refused_is_one_line_and_status_1(bax: Bax) -> None:
    bax("migrate")
    bax("projects", "create", "Films", "--id", "cl_films")

    for command, text in (
        (("projects", "get", "cl_none"), "project cl_none not found"),
        (("projects", "create", "Films", "--id", "cl_films"), "cl_films"),
        (("keys", "revoke", "key_none", "--project", "cl_films"), "API key key_none not found"),
        (("jobs", "get", "cm_none"), "conversion job cm_none not found"),
    ):
        done = bax(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("bax: ")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_storage_of_a_project_takes_its_keys_from_the_environment(bax: Bax) -> None:
    """GN-24: a project's S3 settings, without its keys on a command line."""
    bax("migrate")
    bax("projects", "create", "Films", "--id", "cl_films")
    options = ("--bucket", "my-bucket", "--region", "eu-west-1", "--prefix", "films/")

    done = bax("projects", "s3", "cl_films", *options, "--json", s3_access_key="AKIA", s3_secret_key="sesame")

    shown = json.loads(done.stdout)["s3Config"]
    assert (shown["bucket"], shown["prefix"], shown["hasCredentials"]) == ("my-bucket", "films/", True)
    assert "sesame" not in done.stdout + done.stderr
    assert "s3Config" not in json.loads(bax("projects", "s3", "cl_films", "--clear", "--json").stdout)


def test_secrets_rotate(bax: Bax, data_dir: Path) -> None:
    """The old key can go once everything is encrypted with the new one, and not before."""
    bax("migrate")
    bax("projects", "create", "Films", "--id", "cl_films")
    bax("projects", "s3", "cl_films", "--bucket", "films", s3_access_key="AKIA", s3_secret_key="sesame")
    old = (data_dir / "secret.key").read_text().strip()
    new = bax("secrets", "new").stdout.strip()

    too_early = bax("projects", "list", secret_keys=new)
    rotated = bax("secrets", "rotate", secret_keys=f"{new},{old}")
    after = bax("projects", "get", "cl_films", "--json", secret_keys=new)

    assert too_early.returncode == 1
    assert "BAX_SECRET_KEYS" in too_early.stderr
    assert (rotated.returncode, rotated.stdout) == (0, "encrypted 1 secrets\n")
    assert json.loads(after.stdout)["s3Config"]["hasCredentials"] is True


def test_rotate_needs_keys_to_rotate_to(bax: Bax) -> None:
    bax("migrate")

    done = bax("secrets", "rotate")

    assert done.returncode == 1
    assert "bax secrets new" in done.stderr
