"""Composes recorded tracks in a process of its own: decoding and encoding for minutes must not hold up the worker.

Run as a module it is that process: the order comes in as one JSON object, progress goes out as one number per line, the
last line is what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from adapters.recorder.children import child_environment, module_command
from adapters.recorder.scrub import scrubbed
from server.domain.egress import Encoding
from server.domain.json_form import from_json, to_json
from server.ports.recorder import ComposerBroke, Finished

_log = structlog.get_logger("composer")
# Live recordings keep time with people, this does not.
_NICE = 5
_DONE = "done"
_EMPTY = "empty"


class TrackComposer:
    """Implements `server.ports.recorder.RoomComposer`."""

    async def compose(
        self,
        folder: Path,
        target: Path,
        *,
        layout: str,
        encoding: Encoding,
        container: str,
        on_progress: Callable[[float], None],
    ) -> Finished:
        """Raise ValueError when there is no media, ComposerBroke for whatever else went wrong."""
        order = {
            "folder": str(folder),
            "target": str(target),
            "layout": layout,
            "encoding": to_json(encoding),
            "container": container,
        }
        process = await asyncio.create_subprocess_exec(
            *module_command("adapters.recorder.composer"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            # Among sessions, of which this is one, the kernel may count nothing but this.
            Path(f"/proc/{process.pid}/autogroup").write_text(str(_NICE))
        try:
            return await _followed(process, order, on_progress)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _followed(
    process: asyncio.subprocess.Process, order: object, on_progress: Callable[[float], None]
) -> Finished:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    noise = asyncio.create_task(process.stderr.read(), name="composer's log")
    # Its standard input stays open: its end tells that the worker is gone.
    process.stdin.write(json.dumps(order).encode() + b"\n")
    said: object = None
    while line := await process.stdout.readline():
        said = json.loads(line)
        if isinstance(said, float | int):
            on_progress(float(said))
    process.stdin.close()
    errors = scrubbed((await noise).decode(errors="replace")).strip()
    if errors:
        _log.warning("composer wrote", text=errors[-2000:])
    if isinstance(said, dict) and _DONE in said:
        finished: Finished = from_json(Finished, said[_DONE])
        return finished
    if isinstance(said, dict) and _EMPTY in said:
        raise ValueError("there is no media")
    raise ComposerBroke("the tracks could not be composed")


async def _main() -> None:
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    from adapters.recorder.recompose import compose_tracks

    threading.Thread(target=_until_alone, daemon=True).start()
    try:
        finished = await compose_tracks(
            Path(order["folder"]),
            Path(order["target"]),
            order["layout"],
            from_json(Encoding, order["encoding"]),
            order["container"],
            _say,
        )
    except (ValueError, FileNotFoundError):
        _say({_EMPTY: True})
    else:
        _say({_DONE: to_json(finished)})


def _until_alone() -> None:
    sys.stdin.read()
    # The worker is gone, and with it whoever wanted the file.
    os.killpg(0, signal.SIGKILL)


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
    os._exit(0)
