"""What all parts of a backend stand on: state, the engine of jobs, storage, and the ways out."""

from __future__ import annotations

import hashlib
import secrets
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from adapters.crypto import AesGcmSecretBox, load_or_create_keys
from adapters.db.changes import change_feed
from adapters.db.unit_of_work import SqlDatabase, open_database
from adapters.ffmpeg.encoder import STALL_TIMEOUT_SEC
from adapters.http.download import FetchLimits, HttpSourceFetcher
from adapters.http.netguard import NetGuard, Purpose
from adapters.http.webhook_sender import HttpWebhookSender
from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import S3Options
from adapters.storage.spool import FolderSpool
from adapters.storage.storage import Storage
from server.auth.keys import KeyDirectory
from server.bootstrap import Bootstrapped, bootstrap
from server.clock import Clock, SystemClock
from server.domain.objects import CapabilitySigner
from server.egress.board import OrdersBoard, StirringFeed
from server.jobs.engine import LeaseJobEngine
from server.observability.work_metrics import WorkMetrics
from server.policies import engine_options
from server.ports.jobs import ChangeFeed
from server.settings import Settings
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
class Ground:
    """Opened before, and closed after, everything that is built on it."""

    settings: Settings
    patience: Patience
    clock: Clock
    database: SqlDatabase
    started: Bootstrapped
    guard: NetGuard
    objects: LocalObjects
    storage: Storage
    sender: HttpWebhookSender
    metrics: WorkMetrics
    relay: WebhookRelay
    recorder: OutboxRecorder
    board: OrdersBoard
    engine: LeaseJobEngine
    fetcher: HttpSourceFetcher
    spool: FolderSpool
    keys: KeyDirectory

    @property
    def egress_folder(self) -> Path:
        """Takes what is being recorded."""
        return self.settings.data_dir / "egress"


async def open_ground(
    stack: AsyncExitStack, settings: Settings, *, public_url: str, patience: Patience
) -> Ground:
    """Opens in order; `stack` closes in reverse. Raise as `server.app.open_backend`."""
    clock = SystemClock()
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
    feed = _feed(settings.database, board)
    engine = LeaseJobEngine(database, recorder, clock, feed, engine_options(settings), metrics=metrics)
    keys = KeyDirectory(database, clock)
    stack.push_async_callback(keys.aclose)
    return Ground(
        settings=settings,
        patience=patience,
        clock=clock,
        database=database,
        started=started,
        guard=guard,
        objects=objects,
        storage=storage,
        sender=sender,
        metrics=metrics,
        relay=relay,
        recorder=recorder,
        board=board,
        engine=engine,
        fetcher=_fetcher(settings, guard, patience),
        spool=FolderSpool(settings.data_dir / "uploads", min_free_bytes=settings.min_free_bytes),
        keys=keys,
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


def _signer(keyring: str) -> CapabilitySigner:
    # Each key of the ring signs under its own derivation, so that a rotation keeps old addresses valid.
    keys = [item.partition(":")[2].strip() for item in keyring.split(",") if item.strip()]
    return CapabilitySigner([hashlib.sha256(key.encode()).digest() for key in keys])
