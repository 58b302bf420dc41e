"""Starting, watching and ending egresses through BaxCloud's own calls (EG)."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from generated.baxcloud.v1 import egress_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.egress import Egress, Surface
from server.egress.books import measured_by
from server.egress.compositions import DEFAULT_LAYOUT, Composition, Compositions
from server.egress.control import EgressControl
from server.egress.qualities import DEFAULT_FILE_TYPE, DEFAULT_QUALITY
from server.errors import Code, ServiceError
from server.ids import derived_egress_id
from server.ports.unit_of_work import IDEMPOTENCY_KEPT, Database
from server.services.egress_messages import egress_to_message
from server.services.messages import page_of

# Below the 30 s that the SDK waits for an answer (B-10, B-76).
STOP_WAIT_SEC = 25.0
_ANSWER_SEC = 0.5


class Egresses:
    """The part of `baxcloud.v1.EgressService` about egresses."""

    def __init__(
        self, database: Database, control: EgressControl, compositions: Compositions, clock: Clock
    ) -> None:
        self._database = database
        self._control = control
        self._compositions = compositions
        self._clock = clock

    async def start_egress(self, request: pb.StartEgressRequest, ctx: CallContext) -> pb.Egress:
        wanted = Composition(
            room_name=request.room_name,
            mode=request.mode,
            layout=request.layout or DEFAULT_LAYOUT,
            quality=request.quality or DEFAULT_QUALITY,
            file_type=request.file.file_type.upper() or DEFAULT_FILE_TYPE,
            urls=tuple(request.stream.urls),
            tracks=request.tracks,
        )
        return egress_to_message(await self.start(wanted, ctx))

    async def start(self, wanted: Composition, ctx: CallContext) -> Egress:
        """Under an `Idempotency-Key` the same egress for a day, even if the answer to the first call was never stored."""
        self._compositions.check(wanted)
        egress_id = None
        if ctx.idempotency_key is not None:
            egress_id = await self._derived_id(ctx, ctx.idempotency_key)
        return await self._compositions.start(
            ctx.project_id, wanted, surface=Surface.BAXCLOUD, egress_id=egress_id
        )

    async def stop_egress(self, request: pb.StopEgressRequest, ctx: CallContext) -> pb.Egress:
        return await self._with_progress(await self.stop(request.egress_id, ctx))

    async def stop(self, egress_id: str, ctx: CallContext) -> Egress:
        """As it is once it has ended, or after `STOP_WAIT_SEC` (B-10); one that had ended is as it was (B-11)."""
        try:
            await self._control.stop(ctx.project_id, egress_id)
        except ServiceError as error:
            if error.code is not Code.FAILED_PRECONDITION:
                raise
        wait = STOP_WAIT_SEC
        if ctx.deadline is not None:
            left = (ctx.deadline - self._clock.now()).total_seconds() - _ANSWER_SEC
            wait = max(min(wait, left), 0.0)
        return await self._control.wait_final(egress_id, wait)

    async def pause_egress(self, request: pb.PauseEgressRequest, ctx: CallContext) -> pb.Egress:
        return egress_to_message(
            await self._control.pause(ctx.project_id, request.egress_id, request.mode or "cut")
        )

    async def resume_egress(self, request: pb.ResumeEgressRequest, ctx: CallContext) -> pb.Egress:
        return egress_to_message(await self._control.resume(ctx.project_id, request.egress_id))

    async def list_egress(self, request: pb.ListEgressRequest, ctx: CallContext) -> pb.ListEgressResponse:
        page, size = page_of(request)
        found = await self._control.list(
            ctx.project_id,
            room_name=request.room_name or None,
            shown_status=pb.Egress.Status.Name(request.status) if request.HasField("status") else None,
            page=page,
            size=size,
        )
        return pb.ListEgressResponse(
            items=map(egress_to_message, found.items), total=found.total, page=page, limit=size
        )

    async def get_egress(self, request: pb.GetEgressRequest, ctx: CallContext) -> pb.Egress:
        return await self._with_progress(await self._control.get(ctx.project_id, request.egress_id))

    async def delete_egress(self, request: pb.DeleteEgressRequest, ctx: CallContext) -> Empty:
        await self._control.delete(ctx.project_id, request.egress_id)
        return Empty()

    async def _with_progress(self, egress: Egress) -> pb.Egress:
        async with self._database.read() as tx:
            job = await tx.jobs.get(None, egress.job_id)
        return egress_to_message(egress, measured_by(job) if job is not None else None)

    async def _derived_id(self, ctx: CallContext, key: str) -> str | None:
        derived = derived_egress_id(ctx.project_id, ctx.method, key)
        async with self._database.read() as tx:
            earlier = await tx.egresses.get(None, derived)
        if earlier is not None and earlier.created_at <= self._clock.now() - IDEMPOTENCY_KEPT:
            return None
        return derived
