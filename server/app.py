"""The composition root: settings become adapters, adapters become services; nothing else imports adapters."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from adapters.crypto import AesGcmSecretBox, load_or_create_keys
from adapters.db.changes import change_feed
from adapters.db.unit_of_work import SqlDatabase, open_database
from adapters.ffmpeg.encoder import STALL_TIMEOUT_SEC, FfmpegEncoder
from adapters.http.download import FetchLimits, HttpSourceFetcher
from adapters.http.netguard import NetGuard, Purpose
from adapters.http.webhook_sender import HttpWebhookSender
from adapters.recorder.process import RecorderPool
from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import S3Options
from adapters.storage.spool import FolderSpool
from adapters.storage.storage import Storage
from server.auth.keys import KeyDirectory
from server.bootstrap import Bootstrapped, bootstrap
from server.clock import Clock, SystemClock
from server.conversion.handler import ConversionHandler, Workshop
from server.conversion.leftovers import LeftoverSweep
from server.domain.media import MediaLimits
from server.domain.objects import CapabilitySigner
from server.domain.room_names import RoomNames
from server.egress.abandoned import AbandonedSweep
from server.egress.auto import AutoEgressWatch
from server.egress.board import OrdersBoard, StirringFeed
from server.egress.capacity import Capacity
from server.egress.composing import CompositionSweep
from server.egress.control import EgressControl
from server.egress.delivery import delivery_kind
from server.egress.events import EgressEvents
from server.egress.leftovers import EgressSweep
from server.egress.recording_files import RecordingFiles
from server.egress.room_egress_watch import RoomEgressWatch
from server.egress.storage_choice import StorageChoices
from server.egress_side import EgressBase, egress_side, egress_works
from server.jobs.engine import LeaseJobEngine
from server.livekit import LiveKitSide, livekit_behind, open_livekit, request_reader
from server.maintenance import Maintenance
from server.observability.work_metrics import WorkMetrics
from server.policies import conversion_policy, engine_options, storage_policy
from server.ports.jobs import ChangeFeed, JobHandler
from server.ports.rooms import RoomGateway
from server.rooms.reconcile import Reconciler
from server.services.conversions import VideoConversions
from server.services.projects import Projects
from server.services.webhooks import WebhookService
from server.settings import Settings
from server.webhooks.livekit_events import LiveKitEgressEvents
from server.webhooks.recorder import OutboxRecorder
from server.webhooks.relay import RelayOptions, WebhookRelay
from server.webhooks.schedule import RetrySchedule


@dataclass(frozen=True, slots=True)
class Patience:
    """How long conversions wait for others before they give up or try again; not for operators to choose."""

    storage: S3Options = field(default_factory=S3Options)
    source: FetchLimits = field(default_factory=FetchLimits)
    stall_timeout_sec: float = STALL_TIMEOUT_SEC
    retry_delay_sec: float = 10.0
    disk_full_delay_sec: float = 60.0


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
            # Without a LiveKit there is nothing to record, and no need for a recorder that waits.
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
    patience = patience or Patience()
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        keyring = _keyring(settings)
        database = await open_database(settings.database, AesGcmSecretBox.parse(keyring), clock=clock)
        stack.push_async_callback(database.close)
        started = await bootstrap(database, settings, clock)

        guard = NetGuard(allow_private=settings.allow_private_urls)
        objects = LocalObjects(
            settings.data_dir / "objects", public_url=public_url, signer=_signer(keyring), clock=clock
        )
        storage = _storage(objects, guard, patience)
        stack.push_async_callback(storage.close)
        sender = HttpWebhookSender(guard, timeout_sec=settings.webhook_timeout_sec)
        stack.push_async_callback(sender.close)
        metrics = WorkMetrics()
        relay = _relay(settings, database, sender, clock, metrics)
        recorder = OutboxRecorder(relay.wake)
        board = OrdersBoard()
        engine = LeaseJobEngine(
            database,
            recorder,
            clock,
            _feed(settings.database, board),
            engine_options(settings),
            metrics=metrics,
        )
        fetcher = _fetcher(settings, guard, patience)
        spool = FolderSpool(settings.data_dir / "uploads", min_free_bytes=settings.min_free_bytes)
        keys = KeyDirectory(database, clock)
        stack.push_async_callback(keys.aclose)
        behind = livekit_behind(
            settings, database.secret_box, http_url=local_url, follow_only=local_url is None
        )
        names = RoomNames(started.project_id)
        egress_storage = StorageChoices(storage_policy(settings))
        egress_watchers = (EgressEvents(recorder, clock), LiveKitEgressEvents(relay.wake, clock))

        def control_of(rooms: RoomGateway) -> EgressControl:
            capacity = Capacity(settings.lease_sec)
            return EgressControl(
                database,
                engine,
                rooms,
                egress_storage,
                board,
                clock,
                capacity,
                watchers=egress_watchers,
                tell_page=rooms.set_participant_metadata,
            )

        livekit = await stack.enter_async_context(
            open_livekit(
                behind,
                database,
                recorder,
                names,
                clock,
                control_of=control_of,
                reader=lambda: request_reader(guard),
            )
        )

        def forget_key(key_id: str) -> None:
            keys.forget(key_id)
            livekit.api.pairs.forget(key_id)

        egress_base = EgressBase(
            database=database,
            engine=engine,
            storage=storage,
            policy=storage_policy(settings),
            control=livekit.control,
            board=board,
            source=behind,
            listing=livekit.listing,
            names=names,
            guard=guard,
            clock=clock,
            folder=settings.data_dir / "egress",
            allow_private_urls=settings.allow_private_urls,
            min_free_bytes=settings.min_free_bytes,
            max_sec=settings.egress_max_duration_sec,
            ffmpeg=settings.ffmpeg,
            watchers=egress_watchers,
        )
        egress = egress_side(egress_base)
        room_egress = RoomEgressWatch(database, livekit.api.egress)
        livekit.journal.listen(egress.watch.stir)
        livekit.journal.listen(room_egress.stir)
        worker = None
        if with_worker:
            works = egress_works(egress_base)
            workshop = _workshop(settings, database, storage, fetcher, spool, egress.files, clock, patience)
            worker = Worker(
                engine=engine,
                handlers=(ConversionHandler(workshop), *works.handlers),
                relay=relay,
                auto_egress=egress.watch,
                room_egress=room_egress,
                recorders=works.recorders,
                maintenance=Maintenance(
                    database,
                    clock,
                    objects,
                    workshop.folder,
                    settings.data_dir / "uploads",
                    sweeps=(
                        LeftoverSweep(database, storage, clock),
                        AbandonedSweep(database, egress_watchers, clock),
                        CompositionSweep(database, clock),
                        EgressSweep(database, egress_base.folder, delivery_kind(egress_base.folder)),
                    ),
                ),
                reconciler=livekit.reconciler,
            )
        yield Backend(
            settings=settings,
            clock=clock,
            database=database,
            keys=keys,
            services={
                "EgressService": egress.service,
                "ProjectService": Projects(database, clock, on_key_revoked=forget_key),
                "RoomService": livekit.rooms,
                "VideoConversionService": VideoConversions(
                    database,
                    engine,
                    storage,
                    fetcher,
                    spool,
                    egress.files,
                    conversion_policy(settings),
                    clock,
                ),
                "WebhookService": WebhookService(
                    database, sender, clock, check_url=sender.check_url, wake=relay.wake
                ),
            },
            objects=objects,
            livekit=livekit,
            started=started,
            metrics=metrics,
            worker=worker,
        )


def _feed(database: str, board: OrdersBoard) -> ChangeFeed:
    feed = change_feed(database)
    # SQLite's feed tells of every commit; its API and worker are one process, where the board is told anyway.
    return feed if database.startswith("sqlite") else StirringFeed(feed, board)


def _keyring(settings: Settings) -> str:
    if settings.secret_keys:
        return settings.secret_keys.get_secret_value()
    return load_or_create_keys(settings.data_dir)


def _storage(objects: LocalObjects, guard: NetGuard, patience: Patience) -> Storage:
    async def vet(url: str) -> Sequence[str]:
        return (await guard.resolve(url, Purpose.STORAGE)).addresses

    return Storage(objects, guard=vet, options=patience.storage)


def _relay(
    settings: Settings, database: SqlDatabase, sender: HttpWebhookSender, clock: Clock, metrics: WorkMetrics
) -> WebhookRelay:
    schedule = RetrySchedule(tuple(timedelta(seconds=pause) for pause in settings.webhook_schedule_sec))
    return WebhookRelay(
        database,
        sender,
        clock,
        owner=f"{socket.gethostname()}-{secrets.token_hex(4)}",
        # The lease must outlast a post, or a slow endpoint's delivery would be taken over while it is under way.
        options=RelayOptions(schedule=schedule, lease=timedelta(seconds=settings.webhook_timeout_sec * 3)),
        metrics=metrics,
    )


def _fetcher(settings: Settings, guard: NetGuard, patience: Patience) -> HttpSourceFetcher:
    limits = replace(
        patience.source, max_bytes=settings.max_input_bytes, total_sec=settings.download_timeout_sec
    )
    return HttpSourceFetcher(guard, limits=limits)


def _workshop(
    settings: Settings,
    database: SqlDatabase,
    storage: Storage,
    fetcher: HttpSourceFetcher,
    spool: FolderSpool,
    recordings: RecordingFiles,
    clock: Clock,
    patience: Patience,
) -> Workshop:
    ffmpeg = str(settings.ffmpeg) if settings.ffmpeg else None
    return Workshop(
        database=database,
        storage=storage,
        fetcher=fetcher,
        spool=spool,
        recordings=recordings,
        encoder=FfmpegEncoder(ffmpeg, stall_timeout_sec=patience.stall_timeout_sec),
        clock=clock,
        folder=settings.data_dir / "work",
        limits=MediaLimits(max_duration_sec=settings.max_input_duration_sec),
        retry_delay_sec=patience.retry_delay_sec,
        disk_full_delay_sec=patience.disk_full_delay_sec,
        min_free_bytes=settings.min_free_bytes,
    )


def _signer(keyring: str) -> CapabilitySigner:
    # Each key of the ring signs under its own derivation, so that a rotation keeps old addresses valid.
    keys = [item.partition(":")[2].strip() for item in keyring.split(",") if item.strip()]
    return CapabilitySigner([hashlib.sha256(key.encode()).digest() for key in keys])
