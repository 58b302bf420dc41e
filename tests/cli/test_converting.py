"""`bax convert` and `bax jobs` without a server: the job runs in the command's own process."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Bax
from tests.media import Clip, ClipFactory
from tests.servers.bax import BAX, clean_environment

QUICK = ("--format", "360p", "--preset", "ultrafast")


def test_a_file_becomes_a_stream(bax: Bax, clip: Path, data_dir: Path) -> None:
    done = bax("convert", str(clip), *QUICK, "--metadata", '{"userId": "u_42", "n": 7}', "--json")

    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["outputFormats"], job["durationSec"]) == ("COMPLETED", ["360p"], 3)
    assert job["metadata"] == {"userId": "u_42", "n": 7}
    assert job["inputUrl"] == f"upload://{clip.name}"
    assert (data_dir / "objects" / "cl_default" / job["id"] / "master.m3u8").exists()
    assert "100%" in done.stderr
    assert list((data_dir / "uploads").iterdir()) == []
    assert list((data_dir / "work").iterdir()) == []
    listed = json.loads(bax("jobs", "list", "--json").stdout)
    assert [item["id"] for item in listed["items"]] == [job["id"]]
    assert json.loads(bax("jobs", "get", job["id"], "--json").stdout) == job
    assert bax("jobs", "watch", job["id"]).returncode == 0


def test_it_prints_where_to_watch(bax: Bax, clip: Path) -> None:
    done = bax("convert", str(clip), *QUICK, public_url="https://video.example.com")

    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert urlsplit(lines["master"]).netloc == "video.example.com"
    assert lines["master"].endswith("/master.m3u8")
    assert lines["player"].startswith("https://video.example.com/player/?src=https%3A%2F%2F")


def test_a_file_that_is_no_video_fails(bax: Bax, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("not a video at all\n" * 50)

    done = bax("convert", "a.mp4", *QUICK, "--json")

    job = json.loads(done.stdout)
    assert done.returncode == 1
    assert (job["status"], job["errorCode"]) == ("FAILED", "UNSUPPORTED_FORMAT")
    assert done.stderr.splitlines()[-1] == (
        f"bax: job {job['id']} failed: {job['errorMessage']} (UNSUPPORTED_FORMAT)"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere.mp4",), "nowhere.mp4: there is no such file"),
        (("{clip}", "--format", "999p"), "outputFormats"),
        (("{clip}", "--hls-time", "11"), "hlsTime"),
        (("{clip}", "--preset", "warp"), "ffmpegPreset"),
        (("http://127.0.0.1:80/a.mp4",), "inputUrl: must not point to a private"),
        (("{clip}", "--bucket", "films", "--region", "x"), "s3Config.accessKey"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    bax: Bax, clip: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = bax("convert", *(part.replace("{clip}", str(clip)) for part in arguments))

    assert done.returncode == 1
    assert done.stdout == ""
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(240)
def test_ctrl_c_stops_and_cancels(bax: Bax, tmp_path: Path, data_dir: Path) -> None:
    """Status 130, the job CANCELLED, no FFmpeg and no objects left."""
    slow = ClipFactory(tmp_path).clip(Clip(size="1280x720", fps="30", seconds=30))
    process = subprocess.Popen(
        [*BAX, "convert", str(slow), "--preset", "veryslow", "--format", "720p"],
        env=clean_environment({"BAX_DATA_DIR": str(data_dir)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_segment(data_dir, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()

    job = json.loads(bax("jobs", "list", "--json").stdout)["items"][0]
    assert process.returncode == 130
    assert output == ""
    assert errors.splitlines()[-1] == f"cancelled job {job['id']}"
    assert "Traceback" not in errors
    assert job["status"] == "CANCELLED"
    # A killed process' last moments are the kernel's.
    deadline = time.monotonic() + 10
    while left := _processes_naming(str(data_dir)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _wait_for_segment(data_dir: Path, process: subprocess.Popen[str]) -> None:
    """FFmpeg is at work once there is a segment."""
    deadline = time.monotonic() + 120
    while not list((data_dir / "work").glob("*/*/720p/segment_000.ts")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _processes_naming(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found
