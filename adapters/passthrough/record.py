"""What a recorder process does for plans that take tracks as they came: one track, or every track of the room."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from adapters.passthrough.listener import Listener
from adapters.passthrough.room import Room, RoomLeft
from adapters.passthrough.signal import JoinRefused
from server.domain.egress_sources import RoomTracksSource, TrackSource
from server.ports.recorder import (
    Broke,
    Ended,
    Finish,
    FromRecorder,
    Measured,
    NewOrders,
    RecorderPlan,
)

_TICK_SEC = 1.0


class Recording(Listener, Protocol):
    """A listener that writes. `outcome` is set when it ends by itself."""

    outcome: asyncio.Future[Ended | Broke]

    def attach(self, room: Room) -> None: ...
    def order(self, orders: NewOrders) -> None: ...

    def tick(self) -> None:
        """Once a second."""
        ...

    def measured(self) -> Measured: ...

    def dirty(self) -> list[int]:
        """Descriptors to sync and close."""
        ...

    def finish(self, at_ns: int) -> bool:
        """Makes the files whole; whether there is any media. Nothing is written after it. May block."""
        ...

    async def close(self) -> None:
        """Reports what must be known of each track; after `finish`."""
        ...


async def record_tracks(
    plan: RecorderPlan, orders: AsyncIterator[NewOrders | Finish], report: Callable[[FromRecorder], None]
) -> None:
    """Records until it is told to finish, the source ends or a limit is reached; reports `Ended` or `Broke` last.

    The end of `orders` means `Finish`. Sources: `TrackSource`, `RoomTracksSource`.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Ended | Broke] = loop.create_future()
    recording = _recording(plan, report, outcome)
    room = Room(plan.url, plan.token, recording)
    recording.attach(room)
    tasks = [
        asyncio.create_task(_follow(room, outcome)),
        asyncio.create_task(_obey(recording, orders, outcome)),
        asyncio.create_task(_tick(recording, plan, report, outcome)),
    ]
    try:
        how = await outcome
        at_ns = time.time_ns()
        media = await asyncio.to_thread(recording.finish, at_ns)
        await recording.close()
        if media:
            report(recording.measured())
        report(Ended(how.reason, at_ns, media) if isinstance(how, Ended) else how)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _recording(
    plan: RecorderPlan, report: Callable[[FromRecorder], None], outcome: asyncio.Future[Ended | Broke]
) -> Recording:
    from adapters.passthrough.all_tracks import AllTracks
    from adapters.passthrough.one_track import OneTrack

    if isinstance(plan.source, RoomTracksSource):
        return AllTracks(plan, report, outcome)
    if isinstance(plan.source, TrackSource):
        return OneTrack(plan, plan.source.track_id, report, outcome)
    raise TypeError(f"not a source of tracks: {type(plan.source).__name__}")


async def _follow(room: Room, outcome: asyncio.Future[Ended | Broke]) -> None:
    try:
        await room.run()
    except RoomLeft as left:
        settle(outcome, Ended(left.reason, time.time_ns()))
    except JoinRefused as refusal:
        settle(outcome, Broke("EGRESS_FAILED", str(refusal), 503, retry=refusal.status not in (401, 403)))
    except Exception as error:
        settle(outcome, Broke("INTERNAL", f"the recorder failed: {type(error).__name__}", 500, retry=True))
        raise


async def _obey(
    recording: Recording, orders: AsyncIterator[NewOrders | Finish], outcome: asyncio.Future[Ended | Broke]
) -> None:
    async for order in orders:
        if isinstance(order, Finish):
            break
        recording.order(order)
    settle(outcome, Ended("stopped", time.time_ns()))


async def _tick(
    recording: Recording,
    plan: RecorderPlan,
    report: Callable[[FromRecorder], None],
    outcome: asyncio.Future[Ended | Broke],
) -> None:
    while not outcome.done():
        await asyncio.sleep(_TICK_SEC)
        recording.tick()
        measured = recording.measured()
        if measured.composed:
            report(measured)
        if plan.max_sec and measured.duration_ms >= plan.max_sec * 1000:
            settle(outcome, Ended("limit", time.time_ns()))
        await asyncio.to_thread(_sync, recording.dirty())


def settle(outcome: asyncio.Future[Ended | Broke], how: Ended | Broke) -> None:
    """The first end is the one that counts."""
    if not outcome.done():
        outcome.set_result(how)


def _sync(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)
        os.close(descriptor)
