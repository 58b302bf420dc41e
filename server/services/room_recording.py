"""Recording a room by its name, as RTCstack does it (RT)."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from itertools import count

from generated.baxcloud.v1 import egress_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.egress import Egress, EgressStatus, Surface
from server.domain.egress_sources import RoomSource
from server.domain.room import RoomScope
from server.egress.compositions import Composition, Compositions
from server.egress.control import Decide, EgressControl
from server.errors import Code, ServiceError
from server.ids import ProjectId
from server.ports.unit_of_work import Database, UnitOfWork
from server.services.egress_messages import from_ns

_LAYOUT = "grid"
# What counts as recording (E.1); one that is ending does not.
_ACTIVE = (EgressStatus.STARTING, EgressStatus.ACTIVE)
_PAGE = 100


class RoomRecordings:
    """The part of `baxcloud.v1.EgressService` that RTCstack's routes are served by."""

    def __init__(
        self, database: Database, control: EgressControl, compositions: Compositions, clock: Clock
    ) -> None:
        self._database = database
        self._control = control
        self._compositions = compositions
        self._clock = clock

    async def start_room_recording(
        self, request: pb.StartRoomRecordingRequest, ctx: CallContext
    ) -> pb.StartRoomRecordingResponse:
        """The running recording if there is one, whoever started it, also when many ask at once (RT-07)."""
        egress = await self._started(request.room_id, request.layout or _LAYOUT, ctx)
        return pb.StartRoomRecordingResponse(
            egress_id=egress.id, status="starting", started_at=from_ns(egress.started_at)
        )

    async def stop_room_recording(
        self, request: pb.StopRoomRecordingRequest, ctx: CallContext
    ) -> pb.StopRoomRecordingResponse:
        """Does not wait: the file is there when `egress_ended` says so (B-10)."""
        async with self._database.read() as tx:
            running = await _running(tx, ctx.project_id, request.room_id)
        if running is None:
            raise ServiceError(Code.NOT_FOUND, "No active recording for this room")
        try:
            await self._control.stop(ctx.project_id, running.id)
        except ServiceError as error:
            # It has ended by itself meanwhile.
            if error.code is not Code.FAILED_PRECONDITION:
                raise
        return pb.StopRoomRecordingResponse(egress_id=running.id, status="stopping")

    async def get_room_recording(
        self, request: pb.GetRoomRecordingRequest, ctx: CallContext
    ) -> pb.RoomRecording:
        async with self._database.read() as tx:
            running = await _running(tx, ctx.project_id, request.room_id)
        if running is None:
            return pb.RoomRecording(active=False)
        return pb.RoomRecording(active=True, egress_id=running.id, started_at=from_ns(running.started_at))

    async def _started(self, room: str, layout: str, ctx: CallContext) -> Egress:
        at = f"{self._clock.now().astimezone(UTC):%Y-%m-%dT%H-%M-%S}"
        for number in count():
            path = f"{room}/{at}{f'-{number}' if number else ''}.mp4"
            wanted = Composition(room_name=room, layout=layout, path=path)
            with suppress(_Taken):
                return await self._compositions.start(
                    ctx.project_id, wanted, surface=Surface.RTCSTACK, decide=_decide(room, path, ctx)
                )
        raise AssertionError


class _Taken(Exception):
    """Another recording of the same second has this name (B-70)."""


def _decide(room: str, path: str, ctx: CallContext) -> Decide:
    async def decide(tx: UnitOfWork, room_id: str) -> Egress | None:
        # One start at a time for each room: whoever comes second finds what the first has made.
        await tx.rooms.recall(RoomScope(frozenset({room_id})))
        running = await _running(tx, ctx.project_id, room)
        if running is not None:
            ctx.notes.existing = True
            return running
        recent = await tx.egresses.list(ctx.project_id, room_name=room, size=_PAGE)
        if any(file.path == path for one in recent.items for file in one.plan.outputs.files):
            raise _Taken
        return None

    return decide


async def _running(tx: UnitOfWork, project_id: ProjectId, room: str) -> Egress | None:
    """The newest recording of the whole room that has not begun to end; streams and single tracks are none."""
    found = await tx.egresses.list(project_id, room_name=room, statuses=_ACTIVE, size=_PAGE)
    for one in found.items:
        # One that is still STARTING shows no sign of its end yet.
        if _is_recording(one) and not (await tx.egresses.orders(one.id)).end_reason:
            return one
    return None


def _is_recording(egress: Egress) -> bool:
    return isinstance(egress.plan.source, RoomSource) and bool(egress.plan.outputs.files)
