"""The recorder port: one process per egress that takes a room's media in and writes files, segments and streams.

Plans and orders go in, reports come out, as JSON lines (`server.domain.json_form`). The process knows no storage and no
database: files get local names in its folder, the worker gives them their keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from server.domain.egress import Destination, Encoding
from server.domain.egress_sources import Source

# Seconds for which a recorder that has lost its worker may still write segments; what is open then stays as it is.
ORPHANED_SEC = 6.0

# --- in


@dataclass(frozen=True, slots=True)
class WantedImages:
    """Width and height 0: the picture's own."""

    interval_sec: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class RecorderPlan:
    """Everything one recorder process must know.

    `folder` takes what it writes: `part-{part:03d}.{ext}` (crash-safe: fragmented MP4, WebM clusters, Ogg pages) beside
    a `.json` of the same name with `{"startedAt": ns}`, `seg-{part:03d}-{n:05d}.ts` (the open one grows; whole
    when it is reported), `image-{i}-{part:03d}-{n:05d}.jpeg`.
    For as long as it may write segments it holds an exclusive `flock` on `seg-{part:03d}.lock`.
    `container` "" means no file. `segment_sec` 0 means no segments. `max_sec` 0 means no limit. With `wait_for_others`
    the first frame waits, at most that many seconds, for a first picture of everybody who is known on joining.
    With `at_once` it is subscribed to everything while it joins: LiveKit sends a first picture a tenth of a second sooner then.
    `first_image` continues the numbers of earlier parts. `allow_private_urls` lifts the guard on what a page may reach.
    """

    KIND: ClassVar[str] = "record"
    egress_id: str
    url: str
    token: str = field(repr=False)
    source: Source
    encoding: Encoding
    folder: str
    part: int = 0
    container: str = ""
    segment_sec: int = 0
    images: tuple[WantedImages, ...] = ()
    streams: str = ""
    destinations: tuple[Destination, ...] = ()
    layout: str = "grid"
    paused: str = ""
    max_sec: float = 0.0
    wait_for_others: float = 0.5
    at_once: bool = False
    first_image: int = 0
    allow_private_urls: bool = False


@dataclass(frozen=True, slots=True)
class NewOrders:
    """The state that is wanted from now on; see `server.domain.egress.Orders`."""

    KIND: ClassVar[str] = "orders"
    layout: str = ""
    paused: str = ""
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """Finish the files, end the streams, report `Ended`."""

    KIND: ClassVar[str] = "finish"


ToRecorder = RecorderPlan | NewOrders | Finish

# --- out


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is imported: a plan would begin at once."""

    KIND: ClassVar[str] = "ready"


@dataclass(frozen=True, slots=True)
class Joined:
    """In the room. The facts fill file name templates; empty where they are unknown or do not apply."""

    KIND: ClassVar[str] = "joined"
    room_id: str = ""
    publisher_identity: str = ""
    track_id: str = ""
    track_kind: str = ""
    track_source: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Active:
    """First media was written; `started_at` in ns since 1970 is the moment of the file's time 0."""

    KIND: ClassVar[str] = "active"
    started_at: int


@dataclass(frozen=True, slots=True)
class StreamReport:
    """A destination changed. `state`: `active`, `reconnecting`, `failed`, `finished`; times in ns since 1970."""

    KIND: ClassVar[str] = "stream"
    id: str
    state: str
    at: int
    error: str = ""
    error_code: str = ""
    retries: int = 0


@dataclass(frozen=True, slots=True)
class SegmentWritten:
    """One whole segment, to be uploaded in this order. `started_at` in ns since 1970."""

    KIND: ClassVar[str] = "segment"
    file: str
    number: int
    duration_sec: float
    started_at: int


@dataclass(frozen=True, slots=True)
class ImageWritten:
    """`output` is the index into the plan's images."""

    KIND: ClassVar[str] = "image"
    output: int
    file: str
    number: int
    taken_at: int


@dataclass(frozen=True, slots=True)
class TrackSeen:
    """A track that took part; sent when it comes and again, with `end_ms`, when it goes. Milliseconds of the part."""

    KIND: ClassVar[str] = "track"
    sid: str
    identity: str
    media: str
    codec: str
    start_ms: int
    end_ms: int | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Once a second, and at the end.

    `composed` is all frames written, `repeated` those of them that showed what the one before did; `dropped` could not
    be written in time. `audio_offset_ms` is sound minus picture as the mixer sees it.
    """

    KIND: ClassVar[str] = "measured"
    duration_ms: int
    composed: int = 0
    repeated: int = 0
    dropped: int = 0
    audio_offset_ms: float = 0.0
    bytes: int = 0
    gaps: tuple[Mapping[str, int | str], ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """All local files are whole. `reason`: `stopped`, `source_closed`, `limit`, `streams_ended`, `streams_failed`,
    `connection_lost`, or `evicted`: another recorder joined under the same identity, so this egress has another owner.
    `media`: whether anything was recorded at all.
    """

    KIND: ClassVar[str] = "ended"
    reason: str
    ended_at: int
    media: bool = True


@dataclass(frozen=True, slots=True)
class Broke:
    """It cannot go on, but may still write until it is killed. `code` is B-64's word, `http_code` LiveKit's `error_code`,
    `retry` whether another try may help.
    """

    KIND: ClassVar[str] = "broke"
    code: str
    message: str
    http_code: int = 0
    retry: bool = False


FromRecorder = (
    Ready
    | Joined
    | Active
    | StreamReport
    | SegmentWritten
    | ImageWritten
    | TrackSeen
    | Measured
    | Ended
    | Broke
)


class RecorderDied(Exception):
    """The process ended without `Ended` or `Broke`. The message says how, without secrets."""


class RecorderProcess(Protocol):
    """One running recorder. It ends with its worker: its standard input closes then."""

    async def send(self, order: ToRecorder) -> None:
        """Raise RecorderDied."""
        ...

    def reports(self) -> AsyncIterator[FromRecorder]:
        """Until `Ended` or `Broke`, which come last; raise RecorderDied when the process ends without."""
        ...

    async def kill(self) -> None:
        """Ends it at once, with everything it started; waits until it is gone."""
        ...


class Recorders(Protocol):
    """Starts recorders without their imports, which would take most of the start."""

    async def start(self, plan: RecorderPlan) -> RecorderProcess: ...
    async def aclose(self) -> None: ...


# --- finishing


@dataclass(frozen=True, slots=True)
class Join:
    """Where part `index` begins in the finished file, milliseconds."""

    index: int
    at_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """`duration_ms` of the longest stream; `first_pts_ms` is what the file's own time 0 lies behind the parts' time 0."""

    duration_ms: int
    joins: tuple[Join, ...]


class RecordingMuxer(Protocol):
    """Makes one file of the parts, without re-encoding: MP4 with its index in front."""

    async def finish(self, parts: Sequence[Path], target: Path, container: str) -> Finished:
        """Unfinished parts are read up to where they are whole. Raise ValueError when none holds any media."""
        ...


class ComposerBroke(Exception):
    """A composition ended in the middle; another try may help."""


class RoomComposer(Protocol):
    """Makes one file of tracks that were recorded as they came (`RoomTracksSource`)."""

    async def compose(
        self,
        folder: Path,
        target: Path,
        *,
        layout: str,
        encoding: Encoding,
        container: str,
        on_progress: Callable[[float], None],
    ) -> Finished:
        """`folder` holds tracks and timelines; progress is 0 to 1. Raise ValueError when there is no media,
        ComposerBroke otherwise.
        """
        ...
