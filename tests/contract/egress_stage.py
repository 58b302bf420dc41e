"""What the tests of captures stand on: a database, real jobs and storage, and recorders that do what a script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from adapters.db.tables import deliveries, events, jobs
from adapters.db.unit_of_work import SqlDatabase
from adapters.storage.cloud_client import CloudOptions
from adapters.storage.local import LocalObjects
from adapters.storage.s3_client import S3Options
from adapters.storage.storage import Storage
from server.clock import SystemClock
from server.domain.egress import (
    AudioEncoding,
    Destination,
    Egress,
    EgressPlan,
    EgressSecrets,
    EgressStatus,
    Encoding,
    FileOutput,
    Orders,
    Outputs,
    StorageChoice,
    Surface,
    VideoEncoding,
)
from server.domain.egress_sources import RoomSource, Source
from server.domain.job import Job
from server.domain.objects import CapabilitySigner
from server.domain.project import Project, S3Config
from server.domain.recording import Recording
from server.domain.webhook import WebhookEndpoint
from server.egress.abandoned import AbandonedSweep
from server.egress.board import OrdersBoard
from server.egress.capacity import Capacity
from server.egress.capture import RestartPolicy, Studio
from server.egress.control import EgressControl
from server.egress.delivery import DeliveryHandler, DeliveryPolicy, Shipping
from server.egress.door import RoomDoor
from server.egress.events import EgressEvents
from server.egress.handler import EgressHandler
from server.egress.leftovers import EgressSweep
from server.egress.storage import EgressStorages
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.egress.take import TakeLimits
from server.ids import JobId, ProjectId, new_id
from server.jobs.engine import LeaseJobEngine
from server.jobs.policy import AttemptPolicy
from server.jobs.run import Run
from server.jobs.settle import Settlement
from server.ports.jobs import JobHandler
from server.ports.recorder import (
    RecordingMuxer,
)
from server.webhooks.recorder import OutboxRecorder
from tests.conftest import Eventually
from tests.contract.egress_script import ROOM, OpenRooms, ScriptedMuxer, ScriptedRecorders

PROJECT = ProjectId("cl_proj_abc123")


@dataclass
class Claim:
    """One claim of a job, being worked on."""

    run: Run
    task: asyncio.Task[Any]

    async def ends(self) -> None:
        async with asyncio.timeout(20):
            await self.task

    async def dies(self) -> None:
        """As kill -9 of the worker would: nothing is written any more."""
        self.run._lost = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class EgressStage:
    """Claims are made by hand, each by a new worker. `files` is the data directory."""

    database: SqlDatabase
    files: Path
    eventually: Eventually
    backup: S3Config | None = None
    capacity: Capacity | None = None
    policy: StoragePolicy | None = None
    s3_options: S3Options | None = None
    cloud_options: CloudOptions | None = None
    muxer: RecordingMuxer = field(default_factory=ScriptedMuxer)
    clock: SystemClock = field(default_factory=SystemClock)
    rooms: OpenRooms = field(default_factory=OpenRooms)
    recorders: ScriptedRecorders = field(default_factory=ScriptedRecorders)
    board: OrdersBoard = field(default_factory=OrdersBoard)
    limits: TakeLimits = field(
        default_factory=lambda: TakeLimits(poll_sec=0.05, look_sec=0.02, finish_sec=5, handover_sec=5)
    )

    async def open(self) -> EgressStage:
        await self._add_project()
        self._folder = self.files / "egress"
        self._outbox = OutboxRecorder(lambda: None)
        self._watchers = (EgressEvents(self._outbox, self.clock),)
        policy = self.policy or StoragePolicy(None, True, PROJECT, self.backup)
        self.storage = self._opened_storage()
        storages = EgressStorages(self.database, self.storage, policy)
        self.engine = LeaseJobEngine(self.database, self._outbox, self.clock, _NoFeed())
        self.control = EgressControl(
            self.database,
            self.engine,
            self.rooms,
            StorageChoices(policy),
            self.board,
            self.clock,
            self.capacity,
            watchers=self._watchers,
        )
        self.abandoned = AbandonedSweep(self.database, self._watchers, self.clock)
        self.studio = self._opened_studio(storages)
        self.delivering = DeliveryHandler(self._shipping(storages))
        self.capturing = EgressHandler(self.studio, self.engine, self.delivering.kind)
        self.sweep = EgressSweep(self.database, self._folder, self.delivering.kind)
        self._settlement = Settlement(self._outbox, self.clock, AttemptPolicy())
        self._claims: list[Claim] = []
        return self

    async def _add_project(self) -> None:
        """With one webhook that hears of everything."""
        now = self.clock.now()
        names = ("*", "egress_ended", "recording_started", "recording_finished")
        async with self.database.begin() as tx:
            await tx.projects.add(Project(PROJECT, "Test", now))
            await tx.webhooks.add(
                WebhookEndpoint(new_id("wh"), PROJECT, "https://example.com/", names, (), True, now, now)
            )
            await tx.commit()

    def _opened_storage(self) -> Storage:
        signer = CapabilitySigner([b"key"])
        local = LocalObjects(
            self.files / "objects", public_url="http://127.0.0.1", signer=signer, clock=self.clock
        )
        return Storage(local, guard=_unguarded, options=self.s3_options, cloud=self.cloud_options)

    def _opened_studio(self, storages: EgressStorages) -> Studio:
        return Studio(
            database=self.database,
            recorders=self.recorders,
            door=RoomDoor(self.rooms, self.rooms, self.clock),
            board=self.board,
            storages=storages,
            watchers=self._watchers,
            clock=self.clock,
            folder=self._folder,
            limits=self.limits,
            restarts=RestartPolicy(first_pause_sec=0.01, max_pause_sec=0.05, ask_sec=0.02),
        )

    def _shipping(self, storages: EgressStorages) -> Shipping:
        return Shipping(
            database=self.database,
            storages=storages,
            muxer=self.muxer,
            watchers=self._watchers,
            clock=self.clock,
            folder=self._folder,
            policy=DeliveryPolicy(first_pause_sec=0.01, max_pause_sec=0.02, backup_after=2),
            versions={"baxcloud": "1"},
        )

    async def close(self) -> None:
        for claim in self._claims:
            claim.task.cancel()
        await asyncio.gather(*(claim.task for claim in self._claims), return_exceptions=True)
        await self.storage.close()

    # --- jobs

    async def claim(self, egress: Egress, *, host: str = "host") -> Claim:
        """A worker on `host` takes the capture, or takes it over."""
        return await self.begin(egress.job_id, self.capturing, host=host)

    async def deliver(self) -> None:
        """A worker takes what waits to be delivered."""
        await (await self.begin_delivery()).ends()

    async def begin_delivery(self) -> Claim:
        async def waiting() -> JobId | None:
            async with self.database.begin() as tx:
                return await tx.queue.next_waiting(self.delivering.kind, after="")

        return await self.begin(await self.eventually(waiting), self.delivering)

    async def deliver_again(self, before: Claim) -> Claim:
        """Another worker takes the delivery, however it stands."""
        return await self.begin(before.run.job.id, self.delivering)

    async def unfinish(self, claim: Claim) -> None:
        """As if its worker had died just before the end of its job was stored."""
        undone = jobs.update().where(jobs.c.id == claim.run.job.id)
        undone = undone.values(status="PROCESSING", completed_at=None, result={})
        async with self.database.begin() as tx:
            await tx.run_sync(lambda connection: connection.execute(undone))
            await tx.commit()

    def rework(self) -> None:
        """After a change of `studio`."""
        self.capturing = EgressHandler(self.studio, self.engine, self.delivering.kind)

    async def begin(self, job_id: Any, handler: JobHandler, *, host: str = "host") -> Claim:
        async with self.database.begin() as tx:
            job = await tx.jobs.claim(job_id, owner=f"{host}/{new_id('worker')}", now=self.clock.now())
            await tx.commit()
        assert job is not None
        run = Run(job, self.database, OutboxRecorder(lambda: None))
        claim = Claim(run, asyncio.create_task(self._settlement.attend(run, handler)))
        self._claims.append(claim)
        return claim

    async def job(self, job_id: Any) -> Job:
        async with self.database.read() as tx:
            found = await tx.jobs.get(None, job_id)
        assert found is not None
        return found

    # --- egresses

    async def start(
        self,
        outputs: Outputs | None = None,
        *,
        egress_id: str | None = None,
        type_: str = "record",
        destinations: Sequence[Destination] = (),
        surface: Surface = Surface.BAXCLOUD,
        storage: StorageChoice | None = None,
        source: Source | None = None,
        layout: str = "speaker",
    ) -> Egress:
        path = "recordings/rec_1.mp4"
        plan = EgressPlan(
            livekit_room=ROOM,
            source=source or RoomSource(),
            encoding=Encoding(VideoEncoding(), AudioEncoding()),
            outputs=outputs or Outputs(files=(FileOutput("mp4", path),)),
        )
        return await self.control.start(
            PROJECT,
            room_name=ROOM,
            surface=surface,
            type=type_,
            layout="speaker",
            quality="720p",
            file_type="MP4",
            plan=plan,
            request={"type": "room_composite", "body": {}},
            orders=Orders(layout=layout, destinations=tuple(destinations)),
            secrets=EgressSecrets(storages=(storage,)) if storage else EgressSecrets(),
            egress_id=egress_id,
        )

    async def becomes(self, egress: Egress, status: EgressStatus) -> Egress:
        async def reached() -> Egress | None:
            now = await self.egress(egress)
            assert now.status is status, f"{now.status} {now.details} {now.failing}"
            return now

        found: Egress = await self.eventually(reached)
        return found

    async def stop(self, egress: Egress) -> None:
        await self.control.stop(PROJECT, egress.id)

    async def egress(self, egress: Egress) -> Egress:
        async with self.database.read() as tx:
            found = await tx.egresses.get(None, egress.id)
        assert found is not None
        return found

    async def recording(self, egress: Egress) -> Recording:
        async with self.database.read() as tx:
            found = await tx.recordings.of_egress(PROJECT, egress.id)
        assert found is not None
        return found

    async def events(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(name, data or flat fields) in the order in which they were recorded."""
        wanted = (
            select(events.c.name, events.c.body)
            .join(deliveries, deliveries.c.event_id == events.c.id)
            .order_by(deliveries.c.sequence)
        )
        async with self.database.read() as tx:
            rows = await tx.run_sync(lambda connection: connection.execute(wanted).all())
        bodies = [(name, json.loads(body)) for name, body in rows]
        return [(name, body.get("data", body)) for name, body in bodies]

    async def names(self) -> list[str]:
        return [name for name, _ in await self.events()]

    def objects(self, egress: Egress) -> dict[str, bytes]:
        folder = self.files / "objects" / PROJECT / egress.id
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


class _NoFeed:
    def start(self, wake: Any) -> None: ...
    async def stop(self) -> None: ...


async def _unguarded(url: str) -> None:
    return None
