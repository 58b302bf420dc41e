"""What runs below this test: read from /proc, so that nothing has to report itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MEDIA = ("ffmpeg", "adapters.ffmpeg.probe", "adapters/ffmpeg/guard.py")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    command: str
    folder: str

    @property
    def is_media(self) -> bool:
        """FFmpeg, the prober, or the wrapper that becomes one of them."""
        return any(word in self.command for word in _MEDIA)


def running() -> list[Process]:
    """All processes but those that have ended and only wait to be reaped."""
    found = (_read(folder) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return [process for process in found if process]


def below(pid: int) -> list[Process]:
    """All descendants."""
    children: dict[int, list[Process]] = {}
    for process in running():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child.pid)
    return found


def media_of(folder: Path) -> list[Process]:
    """Media processes that work in or on `folder`, whoever their parent is by now."""
    return [
        process
        for process in running()
        if process.is_media and (str(folder) in process.command or process.folder.startswith(str(folder)))
    ]


def _read(folder: Path) -> Process | None:
    try:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        where = str((folder / "cwd").readlink())
    except OSError:
        return None
    return None if stat[0] in "ZX" else Process(int(folder.name), int(stat[1]), command, where)
