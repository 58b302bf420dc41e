"""The recorder process: `python -m adapters.recorder`. Reads one plan and its orders, writes reports (see the port)."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import importlib
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator

from adapters.recorder.wire import Commands, Reports
from server.domain.egress_sources import RoomSource, RoomTracksSource, TrackSource, WebSource
from server.ports.recorder import ORPHANED_SEC, Broke, Finish, NewOrders, Ready, RecorderPlan, ToRecorder

# The worker is gone: what is open is finished within this time, or left as it is.
_ENDED_SEC = 20.0
# A process that stands still ends, so that another can go on in its place.
_HUNG_SEC = 60
_BEAT_SEC = 5.0
# One that is not wanted yet gets ready with this part of a processor.
_SHARE = 0.4
_BEGAN = time.monotonic()
# The largest first: between them it gives way.
_LIBRARIES = (
    "numpy",
    "av",
    "livekit.rtc",
    "adapters.recorder.encoders",
    "adapters.recorder.outputs.dial",
    "adapters.recorder.room",
    "adapters.recorder.program",
    "adapters.recorder.session",
)


def main() -> None:
    reports = Reports()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    # The SDK is talkative about what is normal: lost packets, participants that leave.
    logging.getLogger("livekit").setLevel(logging.ERROR)
    _warm_up()
    try:
        asyncio.run(_serve(reports))
    finally:
        reports.close()
        # Native threads of the SDK may still run, and its own way out waits for them.
        sys.stderr.flush()
        os._exit(0)


def _warm_up() -> None:
    """Everything that a recording will import, and the SDK's runtime."""
    for name in _LIBRARIES:
        importlib.import_module(name)
        _give_way()
    from livekit.rtc._ffi_client import FfiClient

    from adapters.compositor import warm

    assert FfiClient.instance is not None
    warm()
    gc.collect()
    gc.freeze()


def _give_way() -> None:
    """Recorders at work come first: rests until its share is no more than `_SHARE`, or somebody wants this one (a line)."""
    resting = time.process_time() / _SHARE - (time.monotonic() - _BEGAN)
    select.select([0], [], [], max(0.0, resting))


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
        from adapters.recorder.web import record_page

        await record_page(plan, commands.queue, reports)
    elif isinstance(source, TrackSource | RoomTracksSource):
        from adapters.passthrough.record import record_tracks

        await record_tracks(plan, _of(commands.queue), reports)
    else:
        from adapters.recorder.session import record_room

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
    from adapters.recorder.outputs.segments import are_open

    if are_open():
        _leave()


def _leave() -> None:
    os._exit(1)


if __name__ == "__main__":
    main()
