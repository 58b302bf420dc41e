"""What a recorder process does for plans that take tracks as they came: one track, or every track of the room."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
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
# Sockets raise OSError as well; after these alone another recorder would fare no better.
_DISK_REFUSES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO})


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
        asyncio.create_task(_settling(work, outcome))
        for work in (
            _follow(room, outcome),
            _obey(recording, orders, outcome),
            _tick(recording, plan, report, outcome),
        )
    ]
    try:
        report(await _finished(recording, await outcome, report))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _finished(
    recording: Recording, how: Ended | Broke, report: Callable[[FromRecorder], None]
) -> Ended | Broke:
    at_ns = time.time_ns()
    try:
        media = await asyncio.to_thread(recording.finish, at_ns)
        await recording.close()
    except Exception as error:  # noqa: BLE001 - what went wrong first says more
        return how if isinstance(how, Broke) else _broke(error)
    if media:
        report(recording.measured())
    return Ended(how.reason, at_ns, media) if isinstance(how, Ended) else how


async def _settling(work: Coroutine[None, None, None], outcome: asyncio.Future[Ended | Broke]) -> None:
    """A recording of which a part fails must not seem to go on."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - whatever it is ends the recording and is told
        settle(outcome, _broke(error))


def _broke(error: Exception) -> Broke:
    if isinstance(error, OSError) and error.errno in _DISK_REFUSES:
        return Broke("STORAGE_UPLOAD_FAILED", f"could not record: {error}", 500)
    traceback.print_exception(error)
    return Broke("INTERNAL", f"the recorder failed: {type(error).__name__}", 500, retry=True)


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
