"""Stands in for FFmpeg where a test needs it to misbehave: shell scripts named by `BAX_FFMPEG` or the constructor."""

from __future__ import annotations

from pathlib import Path


def fake_ffmpeg(folder: Path, script: str) -> str:
    """An executable that runs `script` with FFmpeg's arguments."""
    path = folder / "fake-ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
