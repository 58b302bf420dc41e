"""EgressService on all transports, over a database of its own: rooms that are open are told, owners are played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.db.unit_of_work import SqlDatabase
from adapters.http.netguard import NetGuard, Purpose
from adapters.storage.local import LocalObjects
from adapters.storage.storage import Storage
from server.auth.livekit_tokens import Pair
from server.auth.rtcstack import RtcstackSignatures
from server.domain.egress import Egress, EgressStatus, FileResult, Orders, Results
from server.domain.objects import CapabilitySigner
from server.domain.project import LiveKitKey
from server.domain.recording import Recording
from server.domain.room import Participant, Room, RoomMemory, RoomSession
from server.domain.room_names import RoomNames
from server.egress.auto import AutoEgressWatch
from server.egress.board import OrdersBoard
from server.egress.compositions import Compositions
from server.egress.control import EgressControl, nanoseconds
from server.egress.recording_files import RecordingFiles
from server.egress.storage import EgressStorages
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.ids import ProjectId
from server.jobs.engine import LeaseJobEngine
from server.services.auto_egress import AutoEgressRules
from server.services.egress import EgressService
from server.services.egresses import Egresses
from server.services.recording_compositions import RecordingCompositions
from server.services.recordings import Recordings
from server.services.room_recording import RoomRecordings
from server.webhooks.recorder import OutboxRecorder
from tests.transport.surface import OTHER_PROJECT, PROJECT, Outcome, Surface, running_surface

NAMES = RoomNames(ProjectId(PROJECT))
PAIR = ("APIabcdefghijkl", "the-secret-of-the-pair")
OTHER_PAIR = ("APIotherotherot", "the-secret-of-another-pair")


class SetClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class OpenRooms:
    """A LiveKit in which these rooms, by LiveKit's names, are open: implements `RoomListing`."""

    def __init__(self) -> None:
        self.sids: dict[str, str] = {}

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        """Those of `names` that are open; all when none is given."""
        return tuple(Room(sid, name, None) for name, sid in self.sids.items() if not names or name in names)

    async def participants(self, name: str) -> tuple[Participant, ...]:
        """Nobody."""
        return ()


class _NoChanges:
    def start(self, wake: Callable[[], None]) -> None:
        """Nothing is claimed here."""

    async def stop(self) -> None:
        """Nothing runs."""


class Pairs:
    """LiveKit-style pairs as the database has them: implements `PairFinder`."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    async def find(self, api_key: str) -> Pair | None:
        """None if there is none."""
        async with self._database.read() as tx:
            key = await tx.keys.find_livekit_key(api_key)
        return None if key is None else Pair(key.project_id, key.api_secret)


@dataclass
class EgressStage:
    """`surface` serves; `own` plays the worker that an egress belongs to."""

    surface: Surface
    database: SqlDatabase
    rooms: OpenRooms
    clock: SetClock
    watch: AutoEgressWatch
    control: EgressControl
    storages: EgressStorages
    board: OrdersBoard
    playing: list[asyncio.Task[None]] = field(default_factory=list)

    async def rest(self, verb: str, path: str, body: Any = None, headers: Any = None) -> Outcome:
        return await self.surface.rest(verb, path, body, headers)

    def open_room(self, name: str, project: str = PROJECT) -> str:
        """Its sid."""
        full = NAMES.to_livekit(ProjectId(project), name)
        self.rooms.sids[full] = sid = f"RM_{len(self.rooms.sids)}{name}"
        return sid

    async def forbid_recording(self, name: str) -> None:
        """The room was created with `enableRecording: false`."""
        sid = self.open_room(name)
        async with self.database.begin() as tx:
            session = RoomSession(sid, ProjectId(PROJECT), name, self.clock.now())
            await tx.rooms.remember(RoomMemory({sid: session}))
            await tx.rooms.settle_recording(sid, allowed=False)
            await tx.commit()

    async def start(self, headers: Any = None, **body: Any) -> Outcome:
        return await self.rest("POST", "/v1/egress/start", body, headers)

    async def stored(self, egress_id: str) -> Egress:
        async with self.database.read() as tx:
            egress = await tx.egresses.get(None, egress_id)
        assert egress is not None
        return egress

    async def orders(self, egress_id: str) -> Orders:
        async with self.database.read() as tx:
            return await tx.egresses.orders(egress_id)

    async def save(self, egress_id: str, **changes: Any) -> Egress:
        """As its owner would."""
        async with self.database.begin() as tx:
            egress = await tx.egresses.get(None, egress_id, lock=True)
            assert egress is not None
            changed = replace(egress, **changes)
            await tx.egresses.save(changed)
            await tx.commit()
        return changed

    async def complete(self, egress_id: str, data: bytes = b"") -> Egress:
        """It ends with `data` as its file, 61.5 s long, put where its storage is."""
        egress = await self.stored(egress_id)
        now = self.clock.now()
        files: tuple[FileResult, ...] = ()
        if egress.plan.outputs.files:
            key = egress.plan.outputs.files[0].path
            opened = await self.storages.open(egress, 0)
            await opened.store.put_bytes(key, data, content_type="video/mp4")
            files = (FileResult(key, 1, 2, 61_500_000_000, len(data), opened.location(key)),)
        if egress.recording_id is not None and files:
            await self._complete_recording(egress.recording_id, files[0])
        results = Results(files=files, streams=egress.results.streams)
        return await self.save(
            egress_id, status=EgressStatus.COMPLETE, ended_at=nanoseconds(now), results=results
        )

    async def recording(self, recording_id: str) -> Recording:
        async with self.database.read() as tx:
            recording = await tx.recordings.get(None, recording_id)
        assert recording is not None
        return recording

    def complete_when_told(self, egress_id: str) -> None:
        """An owner that ends as soon as it is ordered to."""

        async def play() -> None:
            with self.board.watch(egress_id) as stirred:
                while not (await self.orders(egress_id)).end_reason:
                    await stirred.wait()
                    stirred.clear()
            await self.complete(egress_id, b"media")

        self.playing.append(asyncio.create_task(play()))

    async def _complete_recording(self, recording_id: str, file: FileResult) -> None:
        recording = await self.recording(recording_id)
        async with self.database.begin() as tx:
            await tx.recordings.save(
                replace(
                    recording,
                    status="COMPLETED",
                    ended_at=self.clock.now(),
                    key=file.filename,
                    file_url=file.location,
                    file_size=file.size,
                    duration_sec=62,
                    manifest={"egressId": recording.egress_id, "durationMs": 61500, "gaps": []},
                )
            )
            await tx.commit()


@asynccontextmanager
async def egress_stage(
    database: SqlDatabase, folder: Path, *, allow_private: bool = False
) -> AsyncIterator[EgressStage]:
    """The room `studio` is open in both projects, which have a pair each."""
    clock, rooms, board = SetClock(), OpenRooms(), OrdersBoard()
    policy = StoragePolicy(None, local_fallback=True, bootstrap_project_id=ProjectId(PROJECT))
    objects = LocalObjects(
        folder / "objects", public_url="http://bax.test", signer=CapabilitySigner([b"key"]), clock=clock
    )
    storage = Storage(objects, guard=_nowhere)
    storages = EgressStorages(database, storage, policy)
    engine = LeaseJobEngine(database, OutboxRecorder(lambda: None), clock, _NoChanges())
    control = EgressControl(database, engine, rooms, StorageChoices(policy), board, clock)
    guard = NetGuard(allow_private=allow_private)

    def check(url: str, *, field: str) -> object:
        return guard.check_url(url, Purpose.STREAM, field=field)

    compositions = Compositions(control, NAMES, check)
    watch = AutoEgressWatch(database, compositions, clock)
    egresses = Egresses(database, control, compositions, clock)
    service = EgressService(
        egresses,
        Recordings(database, egresses, RecordingFiles(database, storages), clock),
        RecordingCompositions(database, engine, RecordingFiles(database, storages), clock),
        AutoEgressRules(database, compositions, clock, watch.stir),
        RoomRecordings(database, control, compositions, clock),
    )
    async with running_surface(
        database,
        services={"EgressService": service},
        signatures=RtcstackSignatures(Pairs(database), clock),
    ) as surface:
        async with database.begin() as tx:
            for project, (key, secret) in ((PROJECT, PAIR), (OTHER_PROJECT, OTHER_PAIR)):
                await tx.keys.add_livekit_key(LiveKitKey(key, ProjectId(project), secret, clock.now()))
            await tx.commit()
        stage = EgressStage(surface, database, rooms, clock, watch, control, storages, board)
        stage.open_room("studio")
        stage.open_room("studio", OTHER_PROJECT)
        try:
            yield stage
        finally:
            for task in stage.playing:
                task.cancel()
            await asyncio.gather(*stage.playing, return_exceptions=True)
            await storage.close()


async def _nowhere(url: str) -> Sequence[str]:
    raise AssertionError(url)
