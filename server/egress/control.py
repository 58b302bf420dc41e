"""Starts, steers and ends egresses for every surface: rows and orders here, the work is the owner's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from server.clock import Clock
from server.domain.egress import (
    EGRESS_KIND,
    Destination,
    Egress,
    EgressPage,
    EgressPlan,
    EgressSecrets,
    EgressStatus,
    Orders,
    Results,
    Surface,
)
from server.domain.egress_load import cores
from server.domain.egress_sources import RoomSource, RoomTracksSource
from server.domain.job import NewJob
from server.domain.recording import Recording
from server.egress.board import OrdersBoard
from server.egress.books import rewrite
from server.egress.capacity import Capacity
from server.egress.events import EgressWatcher
from server.egress.outcome import aborted, concluded, recording_after
from server.egress.steering import (
    STOPPED_BY_CALL,
    Change,
    Command,
    ending,
    laying_out,
    pausing,
    removing,
    restreaming,
    waiting,
)
from server.egress.storage_choice import StorageChoices
from server.errors import Code, ServiceError, failed_precondition
from server.ids import ProjectId, derived_job_id, new_egress_id, new_recording_id
from server.ports.jobs import JobEngine
from server.ports.rooms import RoomListing
from server.ports.unit_of_work import Database, UnitOfWork

# Each lost worker costs an attempt; a capture goes on as long as its room does, so they must never run out.
MAX_ATTEMPTS = 1_000_000
# How often a waiting call looks, seconds: soon at first, since most ends are quick.
_FIRST_LOOK_SEC = 0.02
_LOOK_SEC = 0.2

Decide = Callable[[UnitOfWork, str], Awaitable[Egress | None]]
"""Looks, in the transaction of the start, at what is there of the room (by sid): an egress to answer instead of a new
one, or None to go on. What it raises ends the start."""


TellPage = Callable[[str, str, str], Awaitable[object]]
"""Sets the metadata (last) of a participant (second) of one of LiveKit's rooms (first)."""


class EgressControl:
    """One for all surfaces. Every change is an order to whoever owns the egress, now or after a crash.

    `watchers` are told of what changes here at once, such as the state ENDING; the owner has watchers of its own.
    """

    def __init__(
        self,
        database: Database,
        engine: JobEngine,
        rooms: RoomListing,
        storage: StorageChoices,
        board: OrdersBoard,
        clock: Clock,
        capacity: Capacity | None = None,
        watchers: Sequence[EgressWatcher] = (),
        tell_page: TellPage | None = None,
    ) -> None:
        self._tell_page = tell_page
        self._capacity = capacity
        self._database = database
        self._engine = engine
        self._rooms = rooms
        self._storage = storage
        self._board = board
        self._clock = clock
        self._watchers = watchers

    async def start(
        self,
        project_id: ProjectId,
        *,
        room_name: str,
        surface: Surface,
        type: str,  # noqa: A002 - the word of every surface
        layout: str,
        quality: str,
        file_type: str,
        plan: EgressPlan,
        request: Mapping[str, Any],
        orders: Orders,
        secrets: EgressSecrets,
        egress_id: str | None = None,
        recording_id: str | None = None,
        needs_room: bool = True,
        decide: Decide | None = None,
    ) -> Egress:
        """STARTING, at once; whatever goes wrong later shows in the egress.

        With an `egress_id` that exists already the one of before is answered, if its request was the same. Raise
        ServiceError: not_found for a room that is not open, failed_precondition `RECORDING_DISABLED` (B-46) or
        `IDEMPOTENCY_CONFLICT`, invalid_argument where there is no storage.
        """
        room_id = await self._room_id(plan.livekit_room) if needs_room else ""
        now = self._clock.now()
        egress_id = egress_id or new_egress_id()
        new = Egress(
            id=egress_id,
            project_id=project_id,
            job_id=derived_job_id(project_id, EGRESS_KIND, egress_id),
            room_name=room_name,
            room_id=room_id,
            surface=surface,
            type=type,
            layout=layout,
            quality=quality,
            file_type=file_type,
            plan=plan,
            request=request,
            created_at=now,
            started_at=nanoseconds(now),
            updated_at=nanoseconds(now),
            recording_id=(recording_id or new_recording_id()) if _records(type, plan) else None,
            results=Results(streams=tuple(map(waiting, orders.destinations))),
        )
        try:
            egress = await self._accept(new, orders, secrets, decide)
        except ServiceError as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise
            # Somebody was faster with the same id; or it was deleted since, then this raises again.
            egress = await self._accept(new, orders, secrets, decide)
        self._engine.nudge()
        return egress

    async def get(self, project_id: ProjectId, egress_id: str) -> Egress:
        """Raise ServiceError not_found."""
        async with self._database.read() as tx:
            return _found(await tx.egresses.get(project_id, egress_id))

    async def list(
        self,
        project_id: ProjectId,
        *,
        room_name: str | None = None,
        statuses: Collection[EgressStatus] | None = None,
        shown_status: str | None = None,
        page: int = 1,
        size: int = 20,
    ) -> EgressPage:
        """Newest first; `shown_status` is STARTED, COMPLETED or FAILED (E.1)."""
        async with self._database.read() as tx:
            return await tx.egresses.list(
                project_id,
                room_name=room_name,
                statuses=statuses,
                shown_status=shown_status,
                page=page,
                size=size,
            )

    async def stop(self, project_id: ProjectId, egress_id: str, reason: str = STOPPED_BY_CALL) -> Egress:
        """ENDING; STARTING where there is nothing to end yet, ABORTED where no worker had it. The first reason stays.

        Raise ServiceError not_found, or failed_precondition once it has ended.
        """
        return await self._change(project_id, egress_id, ending(reason))

    async def update_layout(self, project_id: ProjectId, egress_id: str, layout: str) -> Egress:
        """Raise ServiceError not_found, also where there is no composition that could be laid out, as LiveKit does."""
        egress = await self._change(project_id, egress_id, laying_out(layout))
        source = egress.plan.source
        if isinstance(source, RoomSource) and source.base_url and self._tell_page is not None:
            # A template page learns of it as from LiveKit: by the metadata of the participant that it is.
            with suppress(ServiceError):
                await self._tell_page(egress.plan.livekit_room, egress_id, json.dumps({"layout": layout}))
        return egress

    async def update_streams(
        self,
        project_id: ProjectId,
        egress_id: str,
        *,
        add: Sequence[Destination] = (),
        remove: Sequence[str] = (),
    ) -> Egress:
        """Adds before it removes; `remove` names destinations by canonical URL or id.

        What can be done is done, and what could not be raised afterwards: not_found, one line for each. Raise ServiceError
        also invalid_argument for an egress without streams, failed_precondition for one that is ending.
        """
        problems: tuple[str, ...] = ()

        def change(egress: Egress, orders: Orders) -> Change:
            nonlocal problems
            after = restreaming(add, remove, nanoseconds(self._clock.now()))(egress, orders)
            problems = after.problems
            return after

        egress = await self._change(project_id, egress_id, change)
        if problems:
            raise ServiceError(Code.NOT_FOUND, "\n".join(problems))
        return egress

    async def pause(self, project_id: ProjectId, egress_id: str, mode: str) -> Egress:
        """`cut` or `card`. Raise ServiceError not_found, failed_precondition once it is ending."""
        return await self._change(project_id, egress_id, pausing(mode))

    async def resume(self, project_id: ProjectId, egress_id: str) -> Egress:
        """Nothing happens if it is not paused. Raise as `pause` does."""
        return await self._change(project_id, egress_id, pausing(""))

    async def delete(self, project_id: ProjectId, egress_id: str) -> None:
        """Ends it if need be; its recording stays. Raise ServiceError not_found."""
        await self._change(project_id, egress_id, removing(self._clock.now()))

    async def wait_final(self, egress_id: str, timeout_sec: float) -> Egress:
        """As it is once it has ended, or after that time. For an egress that is known to exist."""
        until = time.monotonic() + timeout_sec
        pause = _FIRST_LOOK_SEC
        while True:
            async with self._database.read() as tx:
                egress = _found(await tx.egresses.get(None, egress_id))
            left = until - time.monotonic()
            if egress.status.is_final or left <= 0:
                return egress
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LOOK_SEC)

    async def _room_id(self, livekit_room: str) -> str:
        found = await self._rooms.rooms([livekit_room])
        if not found:
            raise ServiceError(Code.NOT_FOUND, "requested room does not exist")
        return found[0].sid

    async def _accept(
        self, new: Egress, orders: Orders, secrets: EgressSecrets, decide: Decide | None
    ) -> Egress:
        async with self._database.begin() as tx:
            earlier = await tx.egresses.get(new.project_id, new.id)
            if earlier is not None:
                return _repeated(earlier, new)
            if new.type != "stream" and not await _may_record(tx, new.room_id):
                raise failed_precondition("this room must not be recorded", reason="RECORDING_DISABLED")
            instead = await decide(tx, new.room_id) if decide is not None else None
            if instead is not None:
                return instead
            if self._capacity is not None:
                await self._capacity.admit(tx, new.plan)
            await tx.egresses.add(new, orders, await self._storage.frozen(tx, new.project_id, secrets))
            if new.recording_id is not None:
                await tx.recordings.add(_recording(new, new.recording_id))
            await self._engine.submit(tx, _job(new))
            await tx.commit()
        return new

    async def _change(self, project_id: ProjectId, egress_id: str, command: Command) -> Egress:
        async with self._database.begin() as tx:
            before = _found(await tx.egresses.get(project_id, egress_id, lock=True))
            ordered = await tx.egresses.orders(egress_id)
            after = command(before, ordered)
            egress = before
            if after.orders.end_reason and not ordered.end_reason and await self._take_back(tx, before):
                await tx.egresses.give(egress_id, after.orders)
                egress = await self._abort(tx, before, after)
                await tx.commit()
                return egress
            if after.egress != before:
                egress = replace(after.egress, updated_at=nanoseconds(self._clock.now()))
                await tx.egresses.save(egress)
                for watcher in self._watchers:
                    await watcher.changed(tx, before, egress, None)
            if after.orders != ordered:
                await tx.egresses.give(egress_id, after.orders)
            await tx.commit()
        self._board.notice(egress_id)
        return egress

    async def _take_back(self, tx: UnitOfWork, egress: Egress) -> bool:
        """Whether no worker has ever had it, and now none will: perhaps there is none, or all are busy for hours."""
        if egress.status is not EgressStatus.STARTING:
            return False
        job = await tx.jobs.get(None, egress.job_id)
        if job is None or job.epoch:
            return False
        return await self._engine.cancel(tx, egress.project_id, egress.job_id)

    async def _abort(self, tx: UnitOfWork, before: Egress, after: Change) -> Egress:
        """Started and ended in one go, as its owner would tell it."""
        now = nanoseconds(self._clock.now())
        end = aborted(after.orders.end_reason, now)
        for watcher in self._watchers:
            await watcher.started(tx, before)
        return await rewrite(
            tx,
            before.id,
            lambda _: concluded(after.egress, end, after.egress.results, now),
            recording_after,
            watchers=self._watchers,
            now=now,
        )


def nanoseconds(moment: datetime) -> int:
    """Since 1970, to the microsecond."""
    whole = moment.replace(microsecond=0)
    return (int(whole.timestamp()) * 1_000_000 + moment.microsecond) * 1000


def _found(egress: Egress | None) -> Egress:
    if egress is None:
        raise ServiceError(Code.NOT_FOUND, "egress does not exist")
    return egress


def _repeated(earlier: Egress, new: Egress) -> Egress:
    if (earlier.request, earlier.surface) != (new.request, new.surface):
        raise failed_precondition(
            "this Idempotency-Key was used with another request", reason="IDEMPOTENCY_CONFLICT"
        )
    return earlier


async def _may_record(tx: UnitOfWork, room_id: str) -> bool:
    return not room_id or (await tx.rooms.recording_settings([room_id])).get(room_id, True)


def _records(type_: str, plan: EgressPlan) -> bool:
    """B-44."""
    kept = plan.outputs.files or plan.outputs.segments or isinstance(plan.source, RoomTracksSource)
    return type_ != "stream" and bool(kept)


def _recording(egress: Egress, recording_id: str) -> Recording:
    return Recording(
        id=recording_id,
        project_id=egress.project_id,
        egress_id=egress.id,
        room_name=egress.room_name,
        status="STARTED",
        file_type=egress.file_type,
        layout=egress.layout,
        quality=egress.quality,
        created_at=egress.created_at,
        started_at=egress.created_at,
        tracks=isinstance(egress.plan.source, RoomTracksSource),
    )


def _job(egress: Egress) -> NewJob:
    return NewJob(
        id=egress.job_id,
        project_id=egress.project_id,
        kind=EGRESS_KIND,
        spec={"egressId": egress.id, "cores": cores(egress.plan)},
        max_attempts=MAX_ATTEMPTS,
    )
