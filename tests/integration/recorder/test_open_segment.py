"""The HLS segment that a recorder had open when it ended: what is on disk of it, and what is made of that."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.recorder.program import Program
from server.domain.mpegts import PACKET, NotTransportStream, whole_start
from server.egress.journal import Journal, PartBegun, Reported, Segment
from server.egress.segments import adopt_segments, until_written
from server.ports.recorder import Active, Measured, SegmentWritten
from tests.integration.recorder.material import (
    FPS,
    Feeder,
    Look,
    Reports,
    continuity_errors,
    plan_into,
)

_BEGAN = 1_800_000_000_000_000_000
_FEEDER = """
import resource, signal, sys
from pathlib import Path
from adapters.recorder.program import Program
from tests.integration.recorder.material import Feeder, Reports, plan_into
limit = int(sys.argv[3])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
reports = Reports()
program = Program(plan_into(Path(sys.argv[1]), segment_sec=int(sys.argv[2])), reports)
try:
    Feeder(program).feed(100_000, live=not limit, between=lambda number: print(number, flush=True))
except OSError as error:
    print("refused", error.errno, flush=True)
    try:
        program.finish()
    except OSError:
        print("ended", len(reports.said), flush=True)
"""


@pytest.fixture
def reports() -> Reports:
    return Reports()


async def _feeder(folder: Path, segment_sec: int, limit: int = 0) -> asyncio.subprocess.Process:
    arguments = (str(folder), str(segment_sec), str(limit))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FEEDER, *arguments, stdout=subprocess.PIPE
    )


async def _adopted(folder: Path) -> list[Segment]:
    """What a new owner finds, who knows of nothing but that it has begun."""
    journal = await Journal.open(folder)
    await journal.add(PartBegun(0, "", _BEGAN))
    await journal.add(Reported(0, Active(_BEGAN)))
    await adopt_segments(journal, 0)
    return journal.footage.segments


def _look(folder: Path, files: list[str]) -> Look:
    """All of them as one stream, which must be unbroken."""
    data = b"".join((folder / name).read_bytes() for name in files)
    assert continuity_errors(data) == 0
    whole = folder / "whole.ts"
    whole.write_bytes(data)
    look = Look.at(whole)
    assert look.numbers == list(range(len(look.numbers)))
    assert look.steps() <= {33, 34}
    return look


@pytest.mark.parametrize(("after", "segment_sec"), [(1, 8), (75, 8), (130, 8), (130, 2)])
async def test_a_kill_loses_less_than_two_seconds(tmp_path: Path, after: int, segment_sec: int) -> None:
    """Issue section 5: `kill -9` at any moment, however long segments are; what is left is as long as it says."""
    process = await _feeder(tmp_path, segment_sec)
    assert process.stdout is not None
    fed = 0
    while fed < after:
        fed = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    segments = await _adopted(tmp_path)
    # One picture alone cannot be shown; it may have written more before it was killed.
    assert segments or after == 1
    kept = 0
    if segments:
        look = _look(tmp_path, [one.file for one in segments])
        kept = len(look.numbers)
        assert all(abs(offset) < 0.02 for offset in look.offsets())
    assert fed - kept <= 2 * FPS
    assert sum(one.duration_sec for one in segments) == pytest.approx(kept / FPS, abs=0.001)
    assert [one.duration_sec for one in segments[:-1]] == [2.0] * (len(segments) - 1)


async def test_others_know_whether_it_still_writes(tmp_path: Path) -> None:
    """Whoever goes on on this host waits for a recorder that has outlived its worker, and for no dead one."""
    process = await _feeder(tmp_path, 8)
    assert process.stdout is not None
    await process.stdout.readline()
    assert not await until_written(tmp_path, 0, 0.2)
    assert await until_written(tmp_path, 1, 0.2)
    process.kill()
    await process.wait()
    assert await until_written(tmp_path, 0, 0.2)


async def test_a_full_disk_leaves_what_fits(tmp_path: Path) -> None:
    """Design 7: the write error is told, nothing that is not whole is, and what was written before plays."""
    process = await _feeder(tmp_path, 60, limit=150_000)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"refused 27" in said  # EFBIG
    assert said.strip().endswith(b"ended 0")
    (segment,) = await _adopted(tmp_path)
    look = _look(tmp_path, [segment.file])
    assert len(look.numbers) > FPS
    assert segment.duration_sec == pytest.approx(len(look.numbers) / FPS, abs=0.001)


def test_an_ordinary_end_leaves_nothing_open(tmp_path: Path, reports: Reports) -> None:
    """Saved several times in each segment: all that is on disk was told of, and is one unbroken stream."""
    program = Program(plan_into(tmp_path, segment_sec=2), reports)
    Feeder(program).feed(3 * FPS, live=True)
    program.finish()
    told = [one.file for one in reports.all(SegmentWritten)]
    assert told == sorted(path.name for path in tmp_path.iterdir())
    assert len(_look(tmp_path, told).numbers) == 3 * FPS


@pytest.mark.parametrize("end", ["torn", "zeros"])
def test_cut_anywhere_it_plays_up_to_there(tmp_path: Path, reports: Reports, end: str) -> None:
    """A power cut leaves any part of what was last written, or room for it that was never filled."""
    program = Program(plan_into(tmp_path, segment_sec=8), reports)
    Feeder(program).feed(2 * FPS)
    program.finish()
    data = (tmp_path / "seg-000-00000.ts").read_bytes()
    assert whole_start(data).size == len(data)
    assert whole_start(data).duration_sec == pytest.approx(2.0)
    played, path = [], tmp_path / "cut.ts"
    for size in range(len(data) // 37, len(data), len(data) // 37):
        left = data[:size] + (bytes(5000) if end == "zeros" else b"")
        try:
            whole = whole_start(left)
        except NotTransportStream:
            played.append(0)
            continue
        assert whole.size <= size
        assert whole.size % PACKET == 0
        path.write_bytes(left[: whole.size])
        look = Look.at(path)
        assert look.numbers == list(range(len(look.numbers)))
        assert whole.duration_sec == pytest.approx(len(look.numbers) / FPS, abs=0.001)
        # Whoever dies in the middle of this does it again.
        again = whole_start(left[: whole.size])
        assert whole.duration_sec - again.duration_sec < 8 / FPS
        played.append(len(look.numbers))
    assert played == sorted(played)
    assert played[-1] > 2 * FPS - 12
    assert played.count(0) < 10


async def test_the_figures_are_those_of_what_is_left(tmp_path: Path, reports: Reports) -> None:
    """Section 13: gaps are counted from where the playlist ends, not from what was encoded or last measured."""
    program = Program(plan_into(tmp_path, segment_sec=1), reports)
    Feeder(program).feed(2 * FPS + 12)
    program.finish()
    journal = await Journal.open(tmp_path)
    await journal.add(PartBegun(0, "", _BEGAN))
    await journal.add(Reported(0, Active(_BEGAN)))
    await journal.add(Reported(0, Measured(4000, composed=120)))
    await journal.add(Reported(0, reports.all(SegmentWritten)[0]))
    await adopt_segments(journal, 0)
    assert [one.number for one in journal.footage.segments] == [0, 1, 2]
    assert journal.footage.part(0).measured == Measured(2400, composed=120)
    again = await Journal.open(tmp_path)
    assert again.footage.duration_ms == 2400
