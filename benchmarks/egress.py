"""Recordings and streams of real rooms against what they cost at the least, measured in turns in one run."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import egress_calls, egress_lips, egress_streams
from benchmarks.egress_floor import composed_frames, floor_cores
from benchmarks.egress_marks import read, unevenness
from benchmarks.egress_stage import FPS, Hall, Take, finished, forget, hall, media_of, tiles
from benchmarks.results import Row, Section, ratio_of, spread
from server.domain.egress import Encoding
from server.domain.egress_sources import (
    ParticipantSource,
    RoomSource,
    RoomTracksSource,
    Source,
    TrackCompositeSource,
    TrackSource,
)
from tests.integration.recorder.stage import recording
from tests.people import Person

TARGET_RATIO = 1.3
TARGET_MIB = 220.0
TARGET_UNEVEN = 0.01
TARGET_ON_TIME = 0.99
TARGET_TRACK_CORES = 0.03
_ROUNDS, _SECONDS = 3, 12.0
_QUICK_SECONDS = 4.0
_FRAMES_SEC = 5.0
# People's encoders need a while until their pictures are what they will be.
_WARM_UP_SEC = 3.0
_UNTOUCHED = Encoding(None, None)


@dataclass(slots=True)
class _Turns:
    """The same recording again and again, and its floor after each; shares are of pictures."""

    ours: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    receive: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    on_time: list[float] = field(default_factory=list)
    uneven: list[float] = field(default_factory=list)
    constant: bool = True

    def row(self, what: str) -> Row:
        ratio = ratio_of(self.ours, self.floors)
        parts = f"encoders {statistics.median(self.encode):.2f}, SDK {statistics.median(self.receive):.2f}"
        return Row(
            f"{what}: CPU of the recorder",
            spread(self.ours, "cores", 3),
            f"{spread(self.floors, 'cores', 3)} ({parts})",
            f"{ratio:.2f}×",
            f"≤ {TARGET_RATIO:.1f}×",
            ratio <= TARGET_RATIO,
        )


def run(*, quick: bool) -> Section:
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as folder:
        rows = asyncio.run(_measure(Path(folder), quick=quick))
    return Section(rows, _notes(quick=quick))


async def _measure(folder: Path, *, quick: bool) -> list[Row]:
    seconds, rounds = (_QUICK_SECONDS, 1) if quick else (_SECONDS, _ROUNDS)
    four, sixteen = _people(4, 640, 360), _people(16, 320, 180, fps=15)
    rows: list[Row] = []
    async with hall(folder) as ready:
        turns = await _against_floor(ready, four, RoomSource(), seconds, rounds)
        rows += _composition_rows(turns)
        rows += await _three_at_once(ready, four, seconds * 2)
        turns = await _against_floor(ready, sixteen, RoomSource(), seconds, rounds)
        rows += [turns.row("16 × 320×180 at 15/s in 720p30")]
        rows += await _alone(ready, seconds, rounds)
        rows += await _untouched(ready, four, seconds)
        rows += await egress_calls.measure(ready, four, quick=quick)
        rows += await egress_lips.measure(ready, quick=quick)
        rows += await egress_streams.measure(ready, four, quick=quick)
    return rows


def _people(count: int, width: int, height: int, *, fps: int = FPS) -> list[Person]:
    return [Person(f"person-{one}", width=width, height=height, fps=fps, busy=True) for one in range(count)]


async def _against_floor(
    ready: Hall, people: Sequence[Person], source: Source, seconds: float, rounds: int
) -> _Turns:
    room = await ready.room(*people)
    await asyncio.sleep(_WARM_UP_SEC)
    turns = await _turns(ready, room, people, source, seconds, rounds)
    await ready.empty(*people)
    return turns


async def _turns(
    ready: Hall, room: str, people: Sequence[Person], source: Source, seconds: float, rounds: int
) -> _Turns:
    turns = _Turns()
    tile = tiles(people, "grid" if isinstance(source, RoomSource) else "single-speaker")[people[0].identity]
    frames = await composed_frames(ready, room, min(seconds, _FRAMES_SEC))
    for _ in range(rounds):
        take, sent = await _with_track(ready, room, people[0], source, seconds)
        encode, receive = await floor_cores(ready, room, frames, seconds)
        turns.ours.append(take.cores)
        turns.floors.append(encode + receive)
        turns.encode.append(encode)
        turns.receive.append(receive)
        turns.rss.append(take.rss)
        turns.pss.append(take.pss)
        turns.on_time.append(take.on_time)
        shown = await asyncio.to_thread(read, take.file, {"": tile})
        turns.uneven.append(unevenness(shown.numbers[""][FPS:], sent))
        turns.constant = turns.constant and shown.is_constant(FPS)
        forget(take)
    frames.unlink()
    return turns


async def _with_track(
    ready: Hall, room: str, person: Person, source: Source, seconds: float
) -> tuple[Take, set[int]]:
    """A recording, and the numbers of all pictures of one person that arrived meanwhile, by an egress of their track."""
    track = ready.plan(
        room, TrackSource(ready.sids[person.identity]["video"]), encoding=_UNTOUCHED, container=""
    )
    async with recording(ready.pool, track) as beside:
        take = await ready.record(ready.plan(room, source), seconds)
        await finished(beside)
    footage = await asyncio.to_thread(read, media_of(Path(track.folder)), {"": None})
    return take, {number for number in footage.numbers[""] if number is not None}


def _composition_rows(turns: _Turns) -> list[Row]:
    uneven, rss = max(turns.uneven), max(turns.rss)
    return [
        turns.row("4 × 640×360 in 720p30"),
        Row(
            "– its memory, resident",
            spread(turns.rss, "MiB", 0),
            f"its own share {spread(turns.pss, 'MiB', 0)}",
            "",
            f"≤ {TARGET_MIB:.0f} MiB",
            rss <= TARGET_MIB,
        ),
        Row(
            "– pictures repeated or left out",
            f"{100 * uneven:.2f} %",
            "those that arrived",
            "",
            f"≤ {100 * TARGET_UNEVEN:.0f} %",
            uneven <= TARGET_UNEVEN,
        ),
        _on_time("– frames on time", turns.on_time),
        Row("– a constant frame rate", "yes" if turns.constant else "no", "", "", "exactly", turns.constant),
    ]


def _on_time(what: str, shares: Sequence[float]) -> Row:
    least = min(shares)
    figure = f"{100 * least:.2f} %"
    return Row(what, figure, "", "", f"≥ {100 * TARGET_ON_TIME:.0f} %", least >= TARGET_ON_TIME)


async def _three_at_once(ready: Hall, people: Sequence[Person], seconds: float) -> list[Row]:
    """With flat pictures, for which targets were set, and with moving ones, which together ask for more than two cores."""
    rows = []
    for what, busy in (("flat", False), ("moving", True)):
        those = [replace(person, busy=busy) for person in people]
        room = await ready.room(*those)
        await asyncio.sleep(_WARM_UP_SEC)
        takes = await asyncio.gather(*(ready.record(ready.plan(room), seconds) for _ in range(3)))
        await ready.empty(*those)
        row = _on_time(f"three at once, {what} pictures: frames on time", [take.on_time for take in takes])
        used = f"{sum(take.cores for take in takes):.2f} cores together"
        rows.append(
            replace(row, floor=used, met=None if busy else row.met, target="" if busy else row.target)
        )
    return rows


async def _alone(ready: Hall, seconds: float, rounds: int) -> list[Row]:
    """One camera that fills the picture, so that nothing has to be scaled."""
    person = Person("alone", width=1280, height=720, kbps=2500, busy=True)
    room = await ready.room(person)
    await asyncio.sleep(_WARM_UP_SEC)
    sids = ready.sids[person.identity]
    sources: dict[str, Source] = {
        "participant, one 720p camera": ParticipantSource(person.identity),
        "track composite, one 720p camera": TrackCompositeSource(sids["audio"], sids["video"]),
    }
    rows = []
    for what, source in sources.items():
        turns = await _turns(ready, room, [person], source, seconds, rounds)
        rows.append(turns.row(what))
    await ready.empty(person)
    return rows


async def _untouched(ready: Hall, people: Sequence[Person], seconds: float) -> list[Row]:
    """Tracks as they came: one alone, and all of a room."""
    room = await ready.room(*people)
    await asyncio.sleep(_WARM_UP_SEC)
    sources: dict[str, tuple[Source, int]] = {
        "track egress, one 640×360 camera": (TrackSource(ready.sids[people[0].identity]["video"]), 1),
        f"all tracks of a room, {2 * len(people)}": (RoomTracksSource(), 2 * len(people)),
    }
    rows = []
    for what, (source, count) in sources.items():
        take = await ready.record(ready.plan(room, source, encoding=_UNTOUCHED, container=""), seconds)
        each, lost = take.cores / count, take.measured.dropped
        target = f"≤ {TARGET_TRACK_CORES} cores, 0 lost"
        met = each <= TARGET_TRACK_CORES and not lost
        rows.append(Row(f"{what}: CPU for each", f"{each:.3f} cores", "", f"{lost} frames lost", target, met))
    await ready.empty(*people)
    return rows


def _notes(*, quick: bool) -> list[str]:
    seconds, rounds = (_QUICK_SECONDS, 1) if quick else (_SECONDS, _ROUNDS)
    return [
        (
            f"Real livekit-server on loopback; the people are a process of their own that sends VP8 with a moving texture, "
            f"their number in each picture, a flash and a beep each second. Compositions: H.264 veryfast 3 Mbit/s and AAC to "
            f"a fragmented MP4. {rounds} turns of {seconds:g} s, each of a new recorder and then of its floor: two processes at "
            "once, one of which encodes the frames that a recorder has composed of the same room (same encoders, same "
            "settings, in time) while the other subscribes to the same tracks and drops what the SDK hands to Python (without "
            "the SDK's own streams, which cost more). "
            "CPU is user and system time of all threads from one second after the first frame."
        ),
        (
            "Pictures repeated or left out: the numbers of one participant in the file, against those of a track egress of the "
            "same camera at the same time, without the first second. On time: composed of what was due, at most 1.5 s later, "
            "by the recorder's own count; three at once also start at once, two of them cold."
        ),
        (
            "Start, UpdateLayout and stop are calls to `bax serve --role all` on SQLite (synchronous=FULL); first frame: when it "
            "was composed. Flash and beep: the publisher's own offset comes from the sender reports of both tracks, recorded "
            "beside (`tracks`). Stream: nginx-rtmp on loopback, PyAV as its viewer."
        ),
    ]
