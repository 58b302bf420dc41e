"""RTCstack's start over both databases: one recording of a room, however many ask at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from adapters.db.unit_of_work import SqlDatabase
from generated.baxcloud.v1 import egress_pb2 as pb
from server.context import CallContext, Caller, CallerKind
from server.domain.egress import Egress, EgressStatus
from server.egress.board import OrdersBoard
from server.egress.compositions import Compositions
from server.egress.control import EgressControl
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.jobs.engine import LeaseJobEngine
from server.services.room_recording import RoomRecordings
from server.webhooks.recorder import OutboxRecorder
from tests.contract.rows import PROJECT, add_projects
from tests.contract.test_auto_egress import NAMES, NoChanges, Scene


def service(scene: Scene) -> RoomRecordings:
    """As another host would have it."""
    policy = StoragePolicy(None, local_fallback=True, bootstrap_project_id=PROJECT)
    engine = LeaseJobEngine(scene.database, OutboxRecorder(lambda: None), scene.clock, NoChanges())
    control = EgressControl(scene.database, engine, scene, StorageChoices(policy), OrdersBoard(), scene.clock)
    compositions = Compositions(control, NAMES, lambda url, field: None)
    return RoomRecordings(scene.database, control, compositions, scene.clock)


async def test_many_hosts_start_one(database: SqlDatabase) -> None:
    """RT-07, B-70: also over and over within one second, each time under another name."""
    await add_projects(database)
    scene = Scene(database)
    await scene.opens("r")
    hosts = [service(scene) for _ in range(4)]
    request = pb.StartRoomRecordingRequest(room_id="r")
    for round_number in (1, 2, 3):
        contexts = [
            CallContext("start", "rest", "req", Caller(CallerKind.API_KEY, PROJECT), {}) for _ in hosts
        ]
        answers = await asyncio.gather(
            *(host.start_room_recording(request, ctx) for host, ctx in zip(hosts, contexts, strict=True))
        )
        assert len({answer.egress_id for answer in answers}) == 1
        assert sorted(ctx.notes.existing for ctx in contexts) == [False, True, True, True]
        assert len(await scene.started()) == round_number
        await hosts[0].stop_room_recording(pb.StopRoomRecordingRequest(room_id="r"), contexts[0])
        async with database.begin() as tx:
            made = await tx.egresses.get(PROJECT, answers[0].egress_id, lock=True)
            assert made is not None
            await tx.egresses.save(ended(made))
            await tx.commit()
    paths = [egress.plan.outputs.files[0].path for egress in await scene.started()]
    assert len(set(paths)) == 3


def ended(egress: Egress) -> Egress:
    return replace(egress, status=EgressStatus.COMPLETE)
