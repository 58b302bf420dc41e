"""What a recorder process does once it was forked: reads one plan and its orders, writes reports (see the port)."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator

from livekit.rtc._ffi_client import FfiClient

from adapters.passthrough.record import record_tracks
from adapters.recorder.outputs.segments import are_open
from adapters.recorder.session import record_room
from adapters.recorder.web import record_page
from adapters.recorder.wire import Commands, Reports
from server.domain.egress_sources import RoomSource, RoomTracksSource, TrackSource, WebSource
from server.ports.recorder import ORPHANED_SEC, Broke, Finish, NewOrders, Ready, RecorderPlan, ToRecorder

# The worker is gone: what is open is finished within this time, or left as it is.
_ENDED_SEC = 20.0
# A process that stands still ends, so that another can go on in its place.
_HUNG_SEC = 60
_BEAT_SEC = 5.0


def main() -> None:
    """Returns when the recording has ended; native threads of the SDK may still run then."""
    reports = Reports()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    # The SDK is talkative about what is normal: lost packets, participants that leave.
    logging.getLogger("livekit").setLevel(logging.ERROR)
    # The SDK's runtime: before the plan is there.
    assert FfiClient.instance is not None
    try:
        asyncio.run(_serve(reports))
    finally:
        reports.close()


async def _serve(reports: Reports) -> None:
    commands = Commands(asyncio.get_running_loop(), _orphaned)
    beating = asyncio.create_task(_beat())
    reports(Ready())
    plan = await commands.plan()
    if plan is not None:
        try:
            await _record(plan, commands, reports)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must know that it was not the plan
            traceback.print_exc()
            reports(Broke("INTERNAL", f"the recorder failed: {type(error).__name__}", 500, retry=True))
    beating.cancel()


async def _record(plan: RecorderPlan, commands: Commands, reports: Reports) -> None:
    source = plan.source
    if isinstance(source, WebSource) or (isinstance(source, RoomSource) and source.base_url):
        await record_page(plan, commands.queue, reports)
    elif isinstance(source, TrackSource | RoomTracksSource):
        await record_tracks(plan, _of(commands.queue), reports)
    else:
        await record_room(plan, commands.queue, reports)


async def _of(orders: asyncio.Queue[ToRecorder]) -> AsyncIterator[NewOrders | Finish]:
    while True:
        order = await orders.get()
        if isinstance(order, NewOrders | Finish):
            yield order


async def _beat() -> None:
    """Ends the process from outside of the interpreter when this loop has not run for long."""
    while True:
        faulthandler.dump_traceback_later(_HUNG_SEC, exit=True)
        await asyncio.sleep(_BEAT_SEC)


def _orphaned() -> None:
    for seconds, action in ((ORPHANED_SEC, _give_up_segments), (_ENDED_SEC, _leave)):
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()


def _give_up_segments() -> None:
    """Another recorder waits for them. What else is to be ended, as a browser, may take longer."""
    if are_open():
        _leave()


def _leave() -> None:
    os._exit(1)
