"""The egress side of the composition root: the service, what does its work, and what starts it by itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from adapters.http.netguard import NetGuard, Purpose
from adapters.recorder.composer import TrackComposer
from adapters.recorder.muxer import Muxer
from adapters.recorder.process import RecorderPool
from server.clock import Clock
from server.domain.room_names import RoomNames
from server.egress.auto import AutoEgressWatch
from server.egress.board import OrdersBoard
from server.egress.capture import Studio
from server.egress.composing import CompositionHandler, Cutter
from server.egress.compositions import Compositions
from server.egress.control import EgressControl
from server.egress.delivery import DeliveryHandler, Shipping, delivery_kind
from server.egress.door import RoomDoor
from server.egress.events import EgressWatcher
from server.egress.handler import EgressHandler
from server.egress.recording_files import RecordingFiles
from server.egress.storage import EgressStorages
from server.egress.storage_choice import StoragePolicy
from server.egress.take import TakeLimits
from server.ports.jobs import JobEngine, JobHandler
from server.ports.livekit import LiveKitSource
from server.ports.rooms import RoomListing
from server.ports.storage import ObjectStorage
from server.ports.unit_of_work import Database
from server.services.auto_egress import AutoEgressRules
from server.services.egress import EgressService
from server.services.egresses import Egresses
from server.services.recording_compositions import RecordingCompositions
from server.services.recordings import Recordings
from server.services.room_recording import RoomRecordings

# Named in manifests: what could explain how a recording looks.
_MEDIA_PACKAGES = ("baxcloud", "av", "livekit", "aiortc")


@dataclass(frozen=True, slots=True)
class EgressBase:
    """What egresses stand on. `folder` takes what is being recorded, one folder each; `ffmpeg` is the operator's."""

    database: Database
    engine: JobEngine
    storage: ObjectStorage
    policy: StoragePolicy
    control: EgressControl
    board: OrdersBoard
    source: LiveKitSource
    listing: RoomListing
    names: RoomNames
    guard: NetGuard
    clock: Clock
    folder: Path
    allow_private_urls: bool
    min_free_bytes: int
    max_sec: float
    ffmpeg: Path | None = None
    watchers: Sequence[EgressWatcher] = ()


@dataclass(frozen=True, slots=True)
class EgressSide:
    """`service` answers `baxcloud.v1.EgressService`, `files` finds recordings, `watch` starts what projects' rules want."""

    service: EgressService
    files: RecordingFiles
    watch: AutoEgressWatch


@dataclass(frozen=True, slots=True)
class EgressWorks:
    """What a worker needs: `recorders` is closed after the handlers have ended."""

    handlers: tuple[JobHandler, ...]
    recorders: RecorderPool


def egress_side(base: EgressBase) -> EgressSide:
    """For every process that answers calls or looks after rooms."""

    def check_url(url: str, *, field: str) -> object:
        return base.guard.check_url(url, Purpose.STREAM, field=field)

    compositions = Compositions(base.control, base.names, check_url)
    watch = AutoEgressWatch(base.database, compositions, base.clock)
    egresses = Egresses(base.database, base.control, compositions, base.clock)
    files = RecordingFiles(base.database, EgressStorages(base.database, base.storage, base.policy))
    service = EgressService(
        egresses,
        Recordings(base.database, egresses, files, base.clock),
        RecordingCompositions(base.database, base.engine, files, base.clock),
        AutoEgressRules(base.database, compositions, base.clock, watch.stir),
        RoomRecordings(base.database, base.control, compositions, base.clock),
    )
    return EgressSide(service, files, watch)


def egress_works(base: EgressBase) -> EgressWorks:
    """For workers. No recorder is started yet."""
    recorders = RecorderPool(environment=_recorders_environment(base.ffmpeg))
    storages = EgressStorages(base.database, base.storage, base.policy)
    studio = Studio(
        database=base.database,
        recorders=recorders,
        door=RoomDoor(base.source, base.listing, base.clock),
        board=base.board,
        storages=storages,
        watchers=base.watchers,
        clock=base.clock,
        folder=base.folder,
        limits=TakeLimits(min_free_bytes=base.min_free_bytes),
        max_sec=base.max_sec,
        allow_private_urls=base.allow_private_urls,
    )
    shipping = Shipping(
        database=base.database,
        storages=storages,
        muxer=Muxer(),
        watchers=base.watchers,
        clock=base.clock,
        folder=base.folder,
        versions=_versions(),
    )
    cutter = Cutter(
        database=base.database,
        storages=storages,
        composer=TrackComposer(),
        clock=base.clock,
        folder=base.folder.with_name("compositions"),
        versions=_versions(),
    )
    capture = EgressHandler(studio, base.engine, delivery_kind(base.folder))
    return EgressWorks((capture, DeliveryHandler(shipping), CompositionHandler(cutter)), recorders)


def _recorders_environment(ffmpeg: Path | None) -> dict[str, str]:
    """The setting may have come from a file, and a recorder, which streams SRT by it, reads no settings."""
    return {**os.environ, **({"BAX_FFMPEG": str(ffmpeg)} if ffmpeg is not None else {})}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _MEDIA_PACKAGES}}
