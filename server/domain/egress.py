"""Egresses and recordings: what is recorded from where, into what, and how far it is (design section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from server.domain.egress_sources import Source
from server.ids import JobId, ProjectId

EGRESS_KIND = "egress"


class EgressStatus(str, Enum):
    """LiveKit's states (livekit-surface section 2.1); `order` is LiveKit's number."""

    STARTING = "EGRESS_STARTING"
    ACTIVE = "EGRESS_ACTIVE"
    ENDING = "EGRESS_ENDING"
    COMPLETE = "EGRESS_COMPLETE"
    FAILED = "EGRESS_FAILED"
    ABORTED = "EGRESS_ABORTED"
    LIMIT_REACHED = "EGRESS_LIMIT_REACHED"

    @property
    def is_final(self) -> bool:
        return self not in (EgressStatus.STARTING, EgressStatus.ACTIVE, EgressStatus.ENDING)


class Surface(str, Enum):
    """Which API an egress was started through: it decides names of objects (B-36), not what can be done with it."""

    BAXCLOUD = "baxcloud"
    LIVEKIT = "livekit"
    RTCSTACK = "rtcstack"
    AUTO = "auto"


# --- encoding


@dataclass(frozen=True, slots=True)
class VideoEncoding:
    """`codec`: `h264_baseline`, `h264_main`, `h264_high` or `vp9`. Bitrate in kbit/s. `key_frame_sec` 0: the encoder's."""

    codec: str = "h264_main"
    width: int = 1280
    height: int = 720
    fps: int = 30
    kbps: int = 3000
    key_frame_sec: float = 0.0


@dataclass(frozen=True, slots=True)
class AudioEncoding:
    """`codec`: `aac`, `opus`, `mp3` or `pcm` (websocket). Always stereo. Bitrate in kbit/s, `hz` samples a second."""

    codec: str = "aac"
    kbps: int = 128
    hz: int = 44100


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encode for all outputs; None where the egress has no picture or no sound."""

    video: VideoEncoding | None
    audio: AudioEncoding | None


# --- outputs


@dataclass(frozen=True, slots=True)
class FileOutput:
    """`container`: `mp4`, `webm`, `ogg`, `mp3`, or "" for what the codec of a track asks for.

    `path` is the caller's template (livekit-surface 3.1), resolved when the facts are known. `storage` is the index into
    the egress's storages.
    """

    container: str
    path: str
    manifest: bool = True
    storage: int = 0


@dataclass(frozen=True, slots=True)
class SegmentsOutput:
    """HLS. Names are the caller's templates; `suffix` is `index` or `timestamp`."""

    prefix: str
    playlist: str = ""
    live_playlist: str = ""
    segment_sec: int = 4
    suffix: str = "index"
    manifest: bool = True
    storage: int = 0


@dataclass(frozen=True, slots=True)
class ImagesOutput:
    """JPEGs every `interval_sec`; width and height 0 mean the picture's own. `suffix`: `index`, `timestamp` or `none`."""

    prefix: str
    interval_sec: int = 10
    width: int = 0
    height: int = 0
    suffix: str = "index"
    manifest: bool = True
    storage: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a stream goes. `url` holds the stream key: never shown, never logged. `id` is ours or the caller's."""

    id: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outputs:
    """`streams`: whether destinations may be there at all, `rtmp`, `srt` or `websocket`, "" for none (LK-52)."""

    files: tuple[FileOutput, ...] = ()
    segments: tuple[SegmentsOutput, ...] = ()
    images: tuple[ImagesOutput, ...] = ()
    streams: str = ""


@dataclass(frozen=True, slots=True)
class EgressPlan:
    """What was asked for, after validation and defaults; without secrets. `livekit_room` is LiveKit's name of the room."""

    livekit_room: str
    source: Source
    encoding: Encoding
    outputs: Outputs


# --- what the owner of a running egress must do, and what it reports


@dataclass(frozen=True, slots=True)
class Orders:
    """What is wanted of a running egress. Declarative, so that a new owner after a crash knows it too.

    `version` grows with each change. `destinations` is the full set that should be streamed to; `paused` is "" or the mode
    of the pause, `cut` or `card`. `end_reason` is the first reason to stop, "" while it should run.
    """

    version: int = 0
    layout: str = ""
    paused: str = ""
    end_reason: str = ""
    destinations: tuple[Destination, ...] = ()

    def then(self, **changes: Any) -> Orders:
        return replace(self, version=self.version + 1, **changes)


class StreamStatus(str, Enum):
    ACTIVE = "ACTIVE"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One destination. `url` is redacted LiveKit's way, `shown_url` the seed's (`***`). Times in ns since 1970, 0 unknown."""

    id: str
    url: str
    shown_url: str
    status: StreamStatus = StreamStatus.ACTIVE
    started_at: int = 0
    ended_at: int = 0
    error: str = ""
    error_code: str = ""
    retries: int = 0
    last_retry_at: int = 0


@dataclass(frozen=True, slots=True)
class FileResult:
    """A finished file. `filename` is its storage key; times in ns since 1970, `duration` in ns, `size` in bytes."""

    filename: str
    started_at: int = 0
    ended_at: int = 0
    duration: int = 0
    size: int = 0
    location: str = ""


@dataclass(frozen=True, slots=True)
class SegmentsResult:
    """As LiveKit's `SegmentsInfo`; times and duration in ns, `size` the sum over the segments."""

    playlist_name: str
    live_playlist_name: str = ""
    playlist_location: str = ""
    live_playlist_location: str = ""
    duration: int = 0
    size: int = 0
    segment_count: int = 0
    started_at: int = 0
    ended_at: int = 0


@dataclass(frozen=True, slots=True)
class ImagesResult:
    filename_prefix: str
    image_count: int = 0
    started_at: int = 0
    ended_at: int = 0


@dataclass(frozen=True, slots=True)
class Results:
    files: tuple[FileResult, ...] = ()
    segments: tuple[SegmentsResult, ...] = ()
    images: tuple[ImagesResult, ...] = ()
    streams: tuple[StreamResult, ...] = ()
    manifest_location: str = ""
    backup_storage_used: bool = False


@dataclass(frozen=True, slots=True)
class Failing:
    """Why an egress did not complete. `code` is B-64's word, `message` one sentence, `http_code` LiveKit's `error_code`."""

    code: str
    message: str
    http_code: int = 0


@dataclass(frozen=True, slots=True)
class Egress:
    """One row of `egresses`: the truth that every API shows.

    `request` is LiveKit's request with secrets redacted, as `{"type": "room_composite", "body": {…}}` (proto JSON).
    `type` is `record`, `stream` or `both`; `quality` and `file_type` are BaxCloud's words, "" where they say nothing.
    `started_at`, `active_at`, `ended_at`, `updated_at` in ns since 1970, 0 while unknown: accepted, first media, terminal.
    """

    id: str
    project_id: ProjectId
    job_id: JobId
    room_name: str
    room_id: str
    surface: Surface
    type: str
    layout: str
    quality: str
    file_type: str
    plan: EgressPlan
    request: Mapping[str, Any]
    created_at: datetime
    started_at: int
    updated_at: int
    status: EgressStatus = EgressStatus.STARTING
    recording_id: str | None = None
    active_at: int = 0
    ended_at: int = 0
    details: str = ""
    failing: Failing | None = None
    paused: str = ""
    results: Results = Results()
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StorageChoice:
    """Where one output's objects go. `backend`: `project` (its default or the data directory), `s3`, `gcp`, `azure`, `alioss`.

    `config` holds the request's own fields with their credentials, in LiveKit's names, encrypted at rest.
    """

    backend: str = "project"
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class EgressWebhook:
    """A webhook of one request (LK-137): `signing_key` names a LiveKit-style key of the project, `secret` is its secret."""

    url: str
    signing_key: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class EgressSecrets:
    """What belongs to an egress and is encrypted at rest."""

    storages: tuple[StorageChoice, ...] = (StorageChoice(),)
    webhooks: tuple[EgressWebhook, ...] = ()


@dataclass(frozen=True, slots=True)
class EgressPage:
    items: tuple[Egress, ...]
    total: int


@dataclass(frozen=True, slots=True)
class RoomEgress:
    """What one session of a room asks to have recorded of its participants and tracks (livekit-surface section 5.5).

    `body` is LiveKit's `RoomEgress` in its own bytes; it may hold credentials of storages, encrypted at rest.
    """

    room_sid: str
    project_id: ProjectId
    room_name: str
    body: bytes = field(repr=False)
    created_at: datetime


BAXCLOUD_STATUS: Mapping[EgressStatus, str] = {
    EgressStatus.STARTING: "STARTED",
    EgressStatus.ACTIVE: "STARTED",
    EgressStatus.ENDING: "STARTED",
    EgressStatus.COMPLETE: "COMPLETED",
    EgressStatus.FAILED: "FAILED",
    EgressStatus.ABORTED: "FAILED",
}
"""E.1, but LIMIT_REACHED: that is COMPLETED where a file exists, else FAILED."""


def shown_status(egress: Egress) -> str:
    """STARTED, COMPLETED or FAILED (E.1)."""
    if egress.status is EgressStatus.LIMIT_REACHED:
        return "COMPLETED" if egress.results.files or egress.results.segments else "FAILED"
    return BAXCLOUD_STATUS[egress.status]
