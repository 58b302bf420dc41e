"""The still picture of a conversion: from its finished segments, or an audio file's cover art."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adapters.ffmpeg import graph
from adapters.ffmpeg.process import Files, Limits, run_guarded
from server.domain.hls import segment_name
from server.domain.ladder import EncodePlan

TIMEOUT_SEC = 30.0
_LIMITS = Limits(file_size=32 * 2**20, cpu_sec=int(TIMEOUT_SEC) * 4)
_OFFSET_SEC = 3.0
_OFFSET_SHARE = 0.1
# Where to look on when the first place is black, in shares of the length.
_FURTHER = (0.25, 0.5, 0.75, 0.9)


async def make_poster(binary: str, plan: EncodePlan, source: Path, work_dir: Path, target: Path) -> bool:
    """Our own segments are upright, square-pixelled and BT.709 already, and small: no second decode of the source."""
    if plan.video_index is None:
        if plan.cover_index is None:
            return False
        command = graph.cover_command(binary, plan, source.resolve(), target.resolve())
        return await _run(command, source, work_dir, target)
    largest = min(plan.renditions, key=lambda rendition: rendition.video or 0)
    places = list(_places(plan, (work_dir / largest.name).resolve()))
    attempts = [(segment, True) for segment in places] + [(segment, False) for segment in places[:1]]
    for segment, skip_black in attempts:
        command = graph.poster_command(binary, segment, target.resolve(), skip_black=skip_black)
        if await _run(command, segment, work_dir, target):
            return True
    return False


def _places(plan: EncodePlan, folder: Path) -> Iterator[Path]:
    """Existing segments: at 10 % but not past 3 s, then ever further, each once."""
    length = float(plan.segment_sec)
    count = sum(1 for _ in folder.glob("segment_*.ts"))
    first = int(min(_OFFSET_SEC, _OFFSET_SHARE * count * length) / length)
    for index in dict.fromkeys([first, first + 1, *(int(count * share) for share in _FURTHER)]):
        path = folder / segment_name(index)
        if path.exists():
            yield path


async def _run(command: list[str], source: Path, work_dir: Path, target: Path) -> bool:
    target.unlink(missing_ok=True)
    outcome = await run_guarded(
        lambda _fds: command,
        cwd=work_dir,
        files=Files(read=(source,), write=(target.parent,)),
        limits=_LIMITS,
        wall_timeout_sec=TIMEOUT_SEC,
    )
    return outcome.returncode == 0 and target.exists() and target.stat().st_size > 0
