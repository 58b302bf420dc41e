"""FFmpeg's log as one sentence that is safe to show."""

from __future__ import annotations

import pytest

from adapters.ffmpeg.failures import MESSAGE_LENGTH, cause_of, failure, scrub
from adapters.ffmpeg.process import Outcome


def test_first_cause_wins_over_its_consequences() -> None:
    log = (
        "[mov,mp4,m4a @ 0x5566] [warning] something small",
        "[vist#0:0/h264 @ 0x5566] [dec:h264 @ 0x99] [error] Decode error rate 1 exceeds maximum 0.666667",
        "[h264 @ 0x5566] [error] Invalid NAL unit size (0 > 23).",
        "[out#0/tee @ 0x1] [error] Nothing was written into output file, because …",
        "[error] Conversion failed!",
    )
    assert cause_of(log) == "Invalid NAL unit size (0 > 23)."


def test_without_errors() -> None:
    assert cause_of(["frame=1", "[info] hello"]) == ""
    assert cause_of(["[error] Conversion failed!"]) == "Conversion failed!"


@pytest.mark.parametrize(
    "line",
    [
        "Error opening input file file:/var/lib/bax/jobs/cm1/source.",
        "Unable to open rtmp://host/app/secretkey",
        "https://user:secretkey@example.com/x?X-Amz-Signature=secretkey failed",
        "[tee @ 0x55f987c17c00] /data/projects/secretkey/360p/segment_000.ts: failed",
    ],
)
def test_no_paths_or_secrets(line: str) -> None:
    """2.3: local paths, stream keys and signatures stay inside."""
    shown = scrub(line)
    assert "secretkey" not in shown
    assert "/var/lib" not in shown
    assert "0x55" not in shown


def test_message_is_short() -> None:
    error = failure(Outcome(1, stalled=False, log=("[error] " + "x" * 5000,)), done_sec=2.0)
    assert len(error.message) < MESSAGE_LENGTH + 100
    assert "after 2.0 s of media" in error.message
