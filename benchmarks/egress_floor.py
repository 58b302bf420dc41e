"""What a recording costs at the least: encoding its frames and nothing else, and receiving its tracks and nothing else.

    python -m benchmarks.egress_floor encode FRAMES   # packed I420, 1280×720, over and over at 30/s
    python -m benchmarks.egress_floor receive URL     # the token comes on standard input

Each says `ready` and goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.egress_stage import FPS, HEIGHT, PROGRAM, WIDTH, Hall, Take, cores_of

if TYPE_CHECKING:
    import av

_FRAME_BYTES = WIDTH * HEIGHT * 3 // 2
_HZ = 48_000
# So many that nothing of the composed frames is lost.
_LOSSLESS_KBPS = 80_000
# A repeated picture is encoded for nearly nothing, which would make the floor too low.
_TRIES = 3


async def composed_frames(hall: Hall, room: str, seconds: float) -> Path:
    """What a recorder composes of the room, as good as unchanged, as packed I420."""
    assert PROGRAM.video is not None
    fine = replace(PROGRAM, video=replace(PROGRAM.video, kbps=_LOSSLESS_KBPS))
    for _ in range(_TRIES):
        take = await hall.record(hall.plan(room, encoding=fine), seconds)
        if not take.measured.repeated:
            break
    return await asyncio.to_thread(_unpacked, take)


def _unpacked(take: Take) -> Path:
    import av

    target = take.folder / "frames.yuv"
    with av.open(str(take.file)) as file, target.open("wb") as output:
        for frame in file.decode(video=0):
            output.write(frame.to_ndarray(format="yuv420p").tobytes())
    take.file.unlink()
    return target


async def floor_cores(hall: Hall, room: str, frames: Path, seconds: float) -> tuple[float, float]:
    """Cores of the encoders alone and of the SDK alone, both running beside each other."""
    token = hall.plan(room).token
    async with AsyncExitStack() as stack:
        encoding = await stack.enter_async_context(_running("encode", str(frames)))
        url = hall.livekit.address.public_url
        receiving = await stack.enter_async_context(_running("receive", url, word=token))
        await asyncio.sleep(1.0)
        encode, receive = await cores_of([encoding, receiving], seconds)
    return encode, receive


@asynccontextmanager
async def _running(*arguments: str, word: str = "") -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __spec__.name,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{word}\n".encode())
        async with asyncio.timeout(30):
            if await process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the floor {arguments[0]} did not start")
        yield process.pid
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


# --- the processes


def _encode(frames: Path) -> None:
    """The recorder's own encoders with its own settings, so that nothing differs but what is around them."""
    from adapters.recorder.encoders import Encoders, KeyFrames

    assert PROGRAM.video is not None
    pictures = _pictures(frames)
    keys = KeyFrames.planned(PROGRAM.video, segment_sec=0, streams=False)
    encoders = Encoders(PROGRAM.video, PROGRAM.audio, keys=keys)
    count = _HZ // FPS
    tone = np.sin(np.arange(count * FPS) * (2 * math.pi * 440 / _HZ)) * 8000
    sound = np.stack([tone, tone], axis=1).astype(np.int16)
    over = _when_input_ends()
    began = time.monotonic()
    number = 0
    while not over.wait(max(0.0, began + number / FPS - time.monotonic())):
        for _ in encoders.encode_video(pictures[number % len(pictures)], number, key=False):
            pass
        at = number % FPS * count
        for _ in encoders.encode_audio(sound[at : at + count]):
            pass
        number += 1


def _pictures(frames: Path) -> list[av.VideoFrame]:
    """All in memory before anything is measured, and encoded from where they lie."""
    from adapters.compositor.picture import new_frame, planes_of

    half = (HEIGHT // 2, WIDTH // 2)
    found: list[av.VideoFrame] = []
    with frames.open("rb") as file:
        while len(data := file.read(_FRAME_BYTES)) == _FRAME_BYTES:
            flat, frame = np.frombuffer(data, np.uint8), new_frame(WIDTH, HEIGHT)
            start = 0
            for plane, shape in zip(planes_of(frame), ((HEIGHT, WIDTH), half, half), strict=True):
                plane[...] = flat[start : start + shape[0] * shape[1]].reshape(shape)
                start += shape[0] * shape[1]
            found.append(frame)
    return found


async def _receive(url: str, token: str) -> None:
    """Every picture and sound comes to Python and is dropped there, by the leanest way there is.

    The SDK's own streams cost up to twice of this: they wake the event loop for every picture of every other stream.
    """
    from livekit import rtc

    from adapters.recorder.tap import Stream, Tap

    room = rtc.Room()
    tap = Tap(asyncio.get_running_loop())
    streams: list[Stream] = []

    def subscribed(track: rtc.Track, *_: object) -> None:
        open_stream = tap.video if track.kind == rtc.TrackKind.KIND_VIDEO else tap.audio
        streams.append(open_stream(track, lambda _: None))

    room.on("track_subscribed", subscribed)
    await room.connect(url, token)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(_when_input_ends().wait)


def _when_input_ends() -> threading.Event:
    over = threading.Event()

    def wait() -> None:
        while sys.stdin.readline():
            pass
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    return over


def main() -> None:
    first = sys.stdin.readline().strip()
    if sys.argv[1] == "encode":
        _encode_when_ready(Path(sys.argv[2]))
    else:
        asyncio.run(_receive(sys.argv[2], first))
    # The SDK's threads still call back, which the interpreter's way out does not bear.
    os._exit(0)


def _encode_when_ready(frames: Path) -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _encode(frames)


if __name__ == "__main__":
    main()
