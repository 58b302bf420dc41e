"""`make demo`, without the set-up that `make test` has done already."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.bax import ROOT, clean_environment
from tests.servers.livekit import livekit_binary

pytestmark = pytest.mark.xdist_group("e2e")


def _demo(data_dir: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.demo"],
        cwd=ROOT,
        env={**clean_environment({"BAX_DATA_DIR": str(data_dir)}), "DEMO_EXIT": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(300)
def test_the_tour_meets_people_in_a_room_and_records_them(tmp_path: Path) -> None:
    """Issue 4, section 5: three participants with picture and sound, their events, and a link for a browser.

    Issue 5, section 8: the room as a file, a live playlist and an RTMP stream, and the recording's ladder.
    """
    binary = livekit_binary()

    done = _demo(tmp_path / "bax", BAX_LIVEKIT_SERVER=str(binary))

    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("  webhook ")]
    for name in ("ada", "ben", "cleo"):
        mine = [line[1:2] + line[3:] for line in told if line[2] == name]
        assert mine[0] == ["participant.joined"]
        assert sorted(mine[1:]) == [["track.published", "camera"], ["track.published", "microphone"]]
        assert re.search(rf"^{name} +{name.title()} +ACTIVE +camera, microphone", done.stdout, re.MULTILINE)
    [link] = re.findall(r"http://\S+/join/#url=\S+", done.stdout)
    assert re.search(r"EGRESS_COMPLETE: demo-\S+\.mp4, 1\d\.\d s", done.stdout)
    assert re.search(r"the RTMP server got \d{3} pictures of 1280×720", done.stdout)
    assert '"gaps": []' in done.stdout
    assert "3 renditions" in done.stdout
    logs = [(tmp_path / "bax" / name).read_text() for name in ("demo.log", "demo.people.log")]
    assert link.partition("&token=")[2] not in "".join(logs)
    assert _processes_with(str(tmp_path / "bax")) == []


def test_the_tour_goes_on_without_a_livekit_server(tmp_path: Path) -> None:
    """Issue section 1: clip, webhook, both conversions, objects, transports, checks; and the server is gone after it."""
    done = _demo(tmp_path / "bax", BAX_LIVEKIT_SERVER="/nowhere/livekit-server")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out, as there is no livekit-server here: run `bax livekit install`" in done.stdout
    assert "The tour is done" in done.stdout
    assert "/player/?src=" in done.stdout
    assert "gRPC, Twirp and REST show the same job" in done.stdout
    assert "/join/" not in done.stdout
    assert _processes_with(str(tmp_path / "bax")) == []


def test_a_tour_that_fails_says_so_with_its_status(tmp_path: Path) -> None:
    """An FFmpeg that does nothing: no clip, no tour."""
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    broken.chmod(0o755)

    done = _demo(tmp_path / "bax", BAX_FFMPEG=str(broken))

    assert done.returncode == 1
    assert "The tour failed: ffmpeg failed: no such codec" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert _processes_with(str(tmp_path / "bax")) == []


def _processes_with(data_dir: str) -> list[str]:
    """Processes whose environment names the data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) != os.getpid() and data_dir.encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found
