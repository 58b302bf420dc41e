"""Which FFmpeg runs: the operator's, the pinned wheel's, or the one on the PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from server.errors import ServiceError, unavailable


def resolve_ffmpeg(configured: str | None = None) -> str:
    """Absolute path of the binary. `configured` (or `BAX_FFMPEG`) wins and must exist.

    Raise ServiceError unavailable with the command that installs one.
    """
    chosen = configured or os.environ.get("BAX_FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise _missing(f"BAX_FFMPEG names {chosen}, which is no executable file")
        return str(Path(found).absolute())
    try:
        import imageio_ffmpeg

        return str(Path(imageio_ffmpeg.get_ffmpeg_exe()).absolute())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise _missing("no FFmpeg found")
    return str(Path(found).absolute())


def _missing(cause: str) -> ServiceError:
    return unavailable(f"{cause}; install one with `pip install imageio-ffmpeg` or set BAX_FFMPEG")
