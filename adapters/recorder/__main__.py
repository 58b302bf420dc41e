"""The fork server of the recorders: `python -m adapters.recorder FD`. It imports what they need, once, and forks them.

FD is a socket of whole messages to the worker: each of its messages carries the descriptors for the standard streams of
one recorder. The answers are `PID` for one that was forked and `PID CODE` for one that has ended (negative: the signal).
It opens no thread, no event loop and no LiveKit runtime: none of them would survive a fork.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from livekit.rtc._ffi_client import get_ffi_lib

from adapters.compositor import warm
from adapters.recorder.serve import main as record


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    _name("bax-forkserver")
    _warm_up()
    children: dict[int, int] = {}
    events = select.poll()
    events.register(control, select.POLLIN)
    while True:
        for descriptor, _ in events.poll():
            if descriptor != control.fileno():
                events.unregister(descriptor)
                _reap(children.pop(descriptor), descriptor, control)
                continue
            streams = _asked(control)
            if not streams:
                # The worker is gone; its recorders see that themselves.
                return
            pid = _fork(streams, [control.fileno(), *children])
            watched = os.pidfd_open(pid)
            children[watched] = pid
            events.register(watched, select.POLLIN)
            _tell(control, f"{pid}")


def _warm_up() -> None:
    get_ffi_lib()
    warm()
    gc.collect()
    # What is here stays in the memory that all share: nobody's collector writes to it.
    gc.freeze()


def _asked(control: socket.socket) -> list[int]:
    """The standard streams of the recorder that is wanted; none when nobody will want one any more."""
    try:
        _, streams, _, _ = socket.recv_fds(control, 1, 3)
    except ConnectionError:
        return []
    return streams


def _fork(streams: list[int], ours: list[int]) -> int:
    """Returns when it leads a group of its own, so that whoever knows its pid can kill it with all it started."""
    led, leads = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_a_recorder(streams, [led, leads, *ours])
    for descriptor in (leads, *streams):
        os.close(descriptor)
    os.read(led, 1)
    os.close(led)
    return pid


def _become_a_recorder(streams: list[int], not_its_own: list[int]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _name("bax-recorder")
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        for descriptor in (*streams, *not_its_own):
            os.close(descriptor)
        record()
        code = 0
    except BaseException:  # noqa: BLE001 - nobody else would print it
        traceback.print_exc()
    finally:
        # The SDK's own way out would wait for its threads.
        sys.stderr.flush()
        os._exit(code)


def _reap(pid: int, watched: int, control: socket.socket) -> None:
    os.close(watched)
    _, status = os.waitpid(pid, 0)
    _tell(control, f"{pid} {os.waitstatus_to_exitcode(status)}")


def _tell(control: socket.socket, message: str) -> None:
    # Without a worker the next poll tells so.
    with suppress(OSError):
        control.send(message.encode())


def _name(name: str) -> None:
    """As `ps -o comm` and `top` show it; at most 15 characters."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


if __name__ == "__main__":
    main()
