"""The composition root: settings become adapters, adapters become services; nothing else imports adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adapters.db.unit_of_work import SqlDatabase
from adapters.ffmpeg.encoder import FfmpegEncoder
from adapters.recorder.process import RecorderPool
from adapters.storage.local import LocalObjects
from server.auth.keys import KeyDirectory
from server.bootstrap import Bootstrapped
from server.clock import Clock
from server.conversion.handler import ConversionHandler, Workshop
from server.conversion.leftovers import LeftoverSweep
from server.domain.media import MediaLimits
from server.domain.room_names import RoomNames
from server.egress.abandoned import AbandonedSweep
from server.egress.auto import AutoEgressWatch
from server.egress.capacity import Capacity
from server.egress.composing import CompositionSweep
from server.egress.control import EgressControl
from server.egress.delivery import delivery_kind
from server.egress.events import EgressEvents, EgressWatcher
from server.egress.leftovers import EgressSweep
from server.egress.recording_files import RecordingFiles
from server.egress.room_egress_watch import RoomEgressWatch
from server.egress.storage_choice import StorageChoices
from server.egress_side import EgressBase, EgressSide, egress_side, egress_works
from server.ground import Ground, Patience, open_ground
from server.jobs.engine import LeaseJobEngine
from server.livekit import LiveKitSide, livekit_behind, open_livekit, request_reader
from server.maintenance import Maintenance
from server.observability.work_metrics import WorkMetrics
from server.policies import conversion_policy, storage_policy
from server.ports.jobs import JobHandler
from server.ports.rooms import RoomGateway
from server.rooms.reconcile import Reconciler
from server.services.conversions import VideoConversions
from server.services.projects import Projects
from server.services.webhooks import WebhookService
from server.settings import Settings
from server.webhooks.livekit_events import LiveKitEgressEvents
from server.webhooks.relay import WebhookRelay


@dataclass(frozen=True, slots=True)
class Backend:
    """Everything behind the transports. `services` by proto service name; `worker` is None without that role."""

    settings: Settings
    clock: Clock
    database: SqlDatabase
    keys: KeyDirectory
    services: Mapping[str, object]
    objects: LocalObjects
    livekit: LiveKitSide
    started: Bootstrapped
    metrics: WorkMetrics
    worker: Worker | None


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts that do work in the background."""

    engine: LeaseJobEngine
    handlers: tuple[JobHandler, ...]
    relay: WebhookRelay
    maintenance: Maintenance
    auto_egress: AutoEgressWatch
    room_egress: RoomEgressWatch
    recorders: RecorderPool
    reconciler: Reconciler | None

    async def start(self) -> None:
        self.relay.start()
        self.maintenance.start()
        if self.reconciler is not None:
            # Without a LiveKit there is nothing to record, and nothing to import for it.
            self.reconciler.start()
            self.auto_egress.start()
            self.room_egress.start()
            self.recorders.warm_up()
        await self.engine.start_worker(self.handlers)

    async def drain(self, grace_sec: float) -> None:
        """Running jobs end within the grace or are handed over; then the last events go out."""
        await self.auto_egress.stop()
        await self.room_egress.stop()
        await self.engine.drain(grace_sec)
        await self.recorders.aclose()
        if self.reconciler is not None:
            await self.reconciler.stop()
        await self.maintenance.stop()
        await self.relay.stop()


@asynccontextmanager
async def open_backend(
    settings: Settings,
    *,
    public_url: str,
    with_worker: bool,
    local_url: str | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Backend]:
    """Opens in order, closes in reverse; `public_url` is what the addresses of local objects begin with.

    `local_url` is our HTTP as programs on this machine reach it; None in a process that has none: then an embedded
    LiveKit is not started here, but one that runs beside it is used.

    Raise SecretsUnreadable, ValueError or OSError with a text for the operator when it cannot start.
    """
    async with AsyncExitStack() as stack:
        ground = await open_ground(stack, settings, public_url=public_url, patience=patience or Patience())
        names = RoomNames(ground.started.project_id)
        watchers = (
            EgressEvents(ground.recorder, ground.clock),
            LiveKitEgressEvents(ground.relay.wake, ground.clock),
        )
        livekit = await _open_livekit(stack, ground, names, watchers, local_url)
        base = _egress_base(ground, livekit, names, watchers)
        egress = egress_side(base)
        room_egress = RoomEgressWatch(ground.database, livekit.api.egress)
        livekit.journal.listen(egress.watch.stir)
        livekit.journal.listen(room_egress.stir)
        yield Backend(
            settings=settings,
            clock=ground.clock,
            database=ground.database,
            keys=ground.keys,
            services=_services(ground, livekit, egress),
            objects=ground.objects,
            livekit=livekit,
            started=ground.started,
            metrics=ground.metrics,
            worker=_worker(ground, livekit, egress, base, room_egress) if with_worker else None,
        )


async def _open_livekit(
    stack: AsyncExitStack,
    ground: Ground,
    names: RoomNames,
    watchers: Sequence[EgressWatcher],
    local_url: str | None,
) -> LiveKitSide:
    settings = ground.settings
    behind = livekit_behind(
        settings, ground.database.secret_box, http_url=local_url, follow_only=local_url is None
    )

    def control_of(rooms: RoomGateway) -> EgressControl:
        return EgressControl(
            ground.database,
            ground.engine,
            rooms,
            StorageChoices(storage_policy(settings)),
            ground.board,
            ground.clock,
            Capacity(settings.lease_sec),
            watchers=watchers,
            tell_page=rooms.set_participant_metadata,
        )

    return await stack.enter_async_context(
        open_livekit(
            behind,
            ground.database,
            ground.recorder,
            names,
            ground.clock,
            control_of=control_of,
            reader=lambda: request_reader(ground.guard),
        )
    )


def _egress_base(
    ground: Ground, livekit: LiveKitSide, names: RoomNames, watchers: Sequence[EgressWatcher]
) -> EgressBase:
    settings = ground.settings
    return EgressBase(
        database=ground.database,
        engine=ground.engine,
        storage=ground.storage,
        policy=storage_policy(settings),
        control=livekit.control,
        board=ground.board,
        source=livekit.source,
        listing=livekit.listing,
        names=names,
        guard=ground.guard,
        clock=ground.clock,
        folder=ground.egress_folder,
        allow_private_urls=settings.allow_private_urls,
        min_free_bytes=settings.min_free_bytes,
        max_sec=settings.egress_max_duration_sec,
        ffmpeg=settings.ffmpeg,
        watchers=watchers,
    )


def _services(ground: Ground, livekit: LiveKitSide, egress: EgressSide) -> Mapping[str, object]:
    """By proto service name."""

    def forget_key(key_id: str) -> None:
        ground.keys.forget(key_id)
        livekit.api.pairs.forget(key_id)

    return {
        "EgressService": egress.service,
        "ProjectService": Projects(ground.database, ground.clock, on_key_revoked=forget_key),
        "RoomService": livekit.rooms,
        "VideoConversionService": VideoConversions(
            ground.database,
            ground.engine,
            ground.storage,
            ground.fetcher,
            ground.spool,
            egress.files,
            conversion_policy(ground.settings),
            ground.clock,
        ),
        "WebhookService": WebhookService(
            ground.database,
            ground.sender,
            ground.clock,
            check_url=ground.sender.check_url,
            wake=ground.relay.wake,
        ),
    }


def _worker(
    ground: Ground,
    livekit: LiveKitSide,
    egress: EgressSide,
    base: EgressBase,
    room_egress: RoomEgressWatch,
) -> Worker:
    database, clock = ground.database, ground.clock
    works = egress_works(base)
    workshop = _workshop(ground, egress.files)
    sweeps = (
        LeftoverSweep(database, ground.storage, clock),
        AbandonedSweep(database, base.watchers, clock),
        CompositionSweep(database, clock),
        EgressSweep(database, base.folder, delivery_kind(base.folder)),
    )
    return Worker(
        engine=ground.engine,
        handlers=(ConversionHandler(workshop), *works.handlers),
        relay=ground.relay,
        auto_egress=egress.watch,
        room_egress=room_egress,
        recorders=works.recorders,
        maintenance=Maintenance(
            database,
            clock,
            ground.objects,
            workshop.folder,
            ground.settings.data_dir / "uploads",
            sweeps=sweeps,
        ),
        reconciler=livekit.reconciler,
    )


def _workshop(ground: Ground, recordings: RecordingFiles) -> Workshop:
    settings, patience = ground.settings, ground.patience
    ffmpeg = str(settings.ffmpeg) if settings.ffmpeg else None
    return Workshop(
        database=ground.database,
        storage=ground.storage,
        fetcher=ground.fetcher,
        spool=ground.spool,
        recordings=recordings,
        encoder=FfmpegEncoder(ffmpeg, stall_timeout_sec=patience.stall_timeout_sec),
        clock=ground.clock,
        folder=settings.data_dir / "work",
        limits=MediaLimits(max_duration_sec=settings.max_input_duration_sec),
        retry_delay_sec=patience.retry_delay_sec,
        disk_full_delay_sec=patience.disk_full_delay_sec,
        min_free_bytes=settings.min_free_bytes,
    )
