"""Recordings, and the rules by which rooms are recorded of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from server.ids import ProjectId


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of `recordings`. `status` is STARTED, COMPLETED or FAILED; `key` the file's object once it is in place.

    `manifest` is the stored manifest in REST spelling (design section 13). `tracks`: it holds every track as it came, for
    ComposeRecording, instead of one file. `composed_from` is such a recording that this one was made of.
    """

    id: str
    project_id: ProjectId
    egress_id: str
    room_name: str
    status: str
    file_type: str
    layout: str
    quality: str
    created_at: datetime
    started_at: datetime
    ended_at: datetime | None = None
    key: str | None = None
    file_url: str | None = None
    file_size: int | None = None
    duration_sec: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    manifest: Mapping[str, Any] | None = None
    tracks: bool = False
    composed_from: str | None = None


@dataclass(frozen=True, slots=True)
class RecordingPage:
    items: tuple[Recording, ...]
    total: int


@dataclass(frozen=True, slots=True)
class AutoEgress:
    """A project's rules (AE). `urls` are destinations, encrypted at rest."""

    project_id: ProjectId
    enabled: bool = False
    mode: str = "record"
    layout: str = "default"
    quality: str = "720p"
    file_type: str = "MP4"
    urls: tuple[str, ...] = field(default=(), repr=False)
    min_participants: int = 1
    delay_seconds: int = 0
    room_name_pattern: str = "*"
    updated_at: datetime | None = None
