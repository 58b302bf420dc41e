"""Turns the end of an FFmpeg process into one sentence for the caller."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from adapters.ffmpeg.process import Outcome
from server.domain.media import TRANSCODE_FAILED, MediaError

_ERROR_LINE = re.compile(r"^(?:\[[^\]]*\] )*?\[(?:error|fatal|panic)\] (?P<text>.*)$")
_TAG = re.compile(r"\[[^\]]*@ 0x[0-9a-f]+\]\s*")
_PATH = re.compile(r"(?:\w+:)?(?:/[^\s'\"/:,]+){2,}/?[^\s'\":,]*")
_CREDENTIALS = re.compile(r"\w+://\S+")
_NO_SPACE = "No space left on device"
# Lines that say that something failed, never what.
_CONSEQUENCES = (
    "Conversion failed",
    "Terminating thread",
    "Task finished",
    "Error sending frames",
    "Nothing was written",
    "Could not write header",
    "Error while",
    "Error submitting",
    "Error muxing",
    "Error closing",
    "Error writing trailer",
    "All tee outputs failed",
    "Slave muxer",
    "Decode error rate",
)
MESSAGE_LENGTH = 300


def scrub(line: str) -> str:
    """Without addresses of objects, paths and URLs."""
    line = _CREDENTIALS.sub("[url]", _TAG.sub("", line))
    return _PATH.sub("[path]", line).strip()[:MESSAGE_LENGTH]


def cause_of(log: Sequence[str]) -> str:
    """The first error that tells a cause, else the last error, else ""."""
    errors = [scrub(match["text"]) for line in log if (match := _ERROR_LINE.match(line))]
    telling = [text for text in errors if text and not text.startswith(_CONSEQUENCES)]
    return telling[0] if telling else (errors[-1] if errors else "")


def failure(outcome: Outcome, *, done_sec: float) -> MediaError:
    """The error of a process that did not end well; full disks and crashes are worth another attempt."""
    at = f" after {done_sec:.1f} s of media" if done_sec > 0 else ""
    if any(_NO_SPACE in line for line in outcome.log):
        return MediaError(TRANSCODE_FAILED, f"the worker's disk is full{at}", retryable=True)
    if outcome.stalled:
        return MediaError(TRANSCODE_FAILED, f"the encoder stopped making progress{at}", retryable=True)
    if outcome.returncode < 0:
        name = signal.Signals(-outcome.returncode).name
        if name in ("SIGXCPU", "SIGXFSZ"):
            return MediaError(
                TRANSCODE_FAILED, f"the conversion used more resources than its length allows{at}"
            )
        return MediaError(TRANSCODE_FAILED, f"the encoder was ended by {name}{at}", retryable=True)
    cause = cause_of(outcome.log) or f"FFmpeg ended with status {outcome.returncode}"
    return MediaError(TRANSCODE_FAILED, f"the source cannot be converted{at}: {cause}")
