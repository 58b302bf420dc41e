"""The recorder's standard input and output: orders in, reports out, one JSON object per line.

Standard output is moved away first, so that nothing that a library prints gets between the reports.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable

from server.domain.json_form import from_json, to_json
from server.ports.recorder import Finish, FromRecorder, Measured, RecorderPlan, ToRecorder

_log = logging.getLogger(__name__)
# A worker that does not read for so long will start another recorder anyway.
_WAITING_REPORTS = 10_000


class Reports:
    """Writes from a thread of its own: whoever reports, never waits for the worker."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._queue: queue.Queue[FromRecorder | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="reports", daemon=True)
        self._thread.start()

    def __call__(self, report: FromRecorder) -> None:
        """From any thread."""
        if isinstance(report, Measured) and self._queue.qsize() > _WAITING_REPORTS:
            return
        self._queue.put(report)

    def close(self) -> None:
        """Everything is written, if the worker reads it within five seconds."""
        self._queue.put(None)
        self._thread.join(5)

    def _write(self) -> None:
        while (report := self._queue.get()) is not None:
            line = json.dumps(to_json(report), separators=(",", ":")).encode() + b"\n"
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                # The worker is gone, which standard input tells as well.
                return


class Commands:
    """Reads standard input in a thread and hands orders to the event loop; its end is an order to finish.

    `abandoned` is called in that thread when the worker is gone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, abandoned: Callable[[], None]) -> None:
        self.queue: asyncio.Queue[ToRecorder] = asyncio.Queue()
        self._loop = loop
        self._abandoned = abandoned
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    async def plan(self) -> RecorderPlan | None:
        """None when the recorder is not needed after all."""
        first = await self.queue.get()
        return first if isinstance(first, RecorderPlan) else None

    def _read(self) -> None:
        with os.fdopen(0, "rb", closefd=False) as lines:
            for line in lines:
                try:
                    order: ToRecorder = from_json(ToRecorder, json.loads(line))
                except (KeyError, TypeError, ValueError):
                    _log.error("an order can't be read")
                    continue
                self._hand_over(order)
        self._abandoned()
        self._hand_over(Finish())

    def _hand_over(self, order: ToRecorder) -> None:
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, order)
        except RuntimeError:
            # The loop has ended: so has the recording.
            pass
