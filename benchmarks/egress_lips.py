"""How far flash and beep are apart in a recording, beyond what they were when they left their publisher."""

from __future__ import annotations

import asyncio
import json
import statistics
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapters.passthrough.timeline import RecordedFile, read_timelines
from benchmarks.egress_marks import read, together
from benchmarks.egress_stage import Hall, finished, tiles
from benchmarks.results import Row, spread
from server.domain.egress import Encoding
from server.domain.egress_sources import RoomTracksSource
from tests.integration.recorder.stage import recording
from tests.people import Person

TARGET_P80_MS, TARGET_MAX_MS = 45.0, 60.0
_SESSIONS, _SECONDS = 3, 25.0
_QUICK_SECONDS = 8.0
# The recorder looks at both delays for a while before it knows how far they are apart.
_SETTLE_SEC = 3.0
_ANN = Person("ann", width=640, height=360)
_BOB = Person("bob", width=640, height=360, audio=False)


async def measure(hall: Hall, *, quick: bool) -> list[Row]:
    own: list[float] = []
    added: list[float] = []
    for _ in range(1 if quick else _SESSIONS):
        of_publisher, ours = await _session(hall, _QUICK_SECONDS if quick else _SECONDS)
        own.append(of_publisher * 1000)
        added += [offset * 1000 for offset in ours]
    p80, most = float(np.percentile(np.abs(added), 80)), float(np.abs(added).max())
    return [
        Row(
            "flash to beep, sound later by",
            spread(added, "ms", 0),
            f"publisher's own {spread(own, 'ms', 0)}",
            f"p80 {p80:.0f} ms",
            f"≤ {TARGET_P80_MS:.0f} ms",
            p80 <= TARGET_P80_MS,
        ),
        Row(
            "the furthest apart",
            f"{most:.0f} ms",
            target=f"≤ {TARGET_MAX_MS:.0f} ms",
            met=most <= TARGET_MAX_MS,
        ),
    ]


async def _session(hall: Hall, seconds: float) -> tuple[float, list[float]]:
    """Seconds that the sound is later in the tracks themselves (median), and what the recording adds to each."""
    room = await hall.room(_ANN, _BOB)
    composed = hall.plan(room)
    tracks = hall.plan(room, RoomTracksSource(), encoding=Encoding(None, None), container="")
    async with recording(hall.pool, tracks) as beside:
        take = await hall.record(composed, seconds)
        await finished(beside)
    await hall.empty(_ANN, _BOB)
    own = await asyncio.to_thread(own_offsets, Path(tracks.folder), _ANN.identity)
    footage = await asyncio.to_thread(read, take.file, dict(tiles([_ANN, _BOB])))
    apart = [offset for at, offset in footage.offsets(_ANN.identity) if at > _SETTLE_SEC]
    theirs = statistics.median(offset for _, offset in own)
    return theirs, [offset - theirs for offset in apart]


def own_offsets(folder: Path, identity: str) -> list[tuple[float, float]]:
    """Of each flash in the tracks recorded there: when, and how much later the beep, seconds.

    By the clock that the publisher stamps both its tracks with (RTCP sender reports).
    """
    flashes: list[float] = []
    beeps: list[float] = []
    for track in read_timelines(folder).tracks.values():
        if track.identity != identity:
            continue
        for file in track.files:
            footage = read(folder / file.file, {"": None})
            shown = _clock(folder, file)
            flashes += [shown(at) for at in footage.flashes[""]]
            beeps += [shown(at) for at in footage.beeps]
    return together(flashes, beeps)


def _clock(folder: Path, file: RecordedFile) -> Callable[[float], float]:
    """When a position in the file was, by the sender reports around it: a publisher that has no time for its sound
    leaves some of it out, and its positions then no longer keep pace with the clock.
    """
    lines = map(json.loads, (folder / "timeline-000.json").read_text().splitlines())
    ticks: list[tuple[float, float]] = [
        (line["position"] / 1e9, line["at"] / 1e9)
        for line in lines
        if line["event"] == "clock" and line["file"] == file.file
    ] or [(0.0, file.start_ns / 1e9)]
    positions = [position for position, _ in ticks]

    def at(position: float) -> float:
        before, moment = ticks[max(0, bisect_right(positions, position) - 1)]
        return moment + position - before

    return at
