"""Synthetic participants of a room: each publishes a moving picture with its name and a quiet tone.

`python -m tools.demo_people` reads one line of JSON, `{"url": …, "people": [{"name", "hue", "token"}]}`, says `ready`
once all are in the room and publish, and leaves when its standard input ends; so nobody stays behind without a demo.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

READY = "ready"
WIDTH, HEIGHT, FPS = 320, 180, 15
# The picture repeats itself after this long.
LOOP_SEC = 4
SAMPLE_RATE = 48_000
TONE_FRAME_MS = 50
# About -32 dBFS: three at once are still pleasant.
LOUDNESS = 800
BITRATE = 250_000
LETTER_PX = 6

# Five bits a row, seven rows a letter.
_LETTERS: Mapping[str, Sequence[int]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
}


@dataclass(frozen=True, slots=True)
class Person:
    """`hue` is in degrees; `token` lets it into the room."""

    name: str
    hue: int
    token: str = field(repr=False)


async def main() -> None:
    orders = json.loads(await asyncio.to_thread(sys.stdin.readline))
    people = [Person(**person) for person in orders["people"]]
    async with AsyncExitStack() as stack:
        for number, person in enumerate(people):
            await stack.enter_async_context(present(orders["url"], person, tone_hz=220 + 110 * number))
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def present(url: str, person: Person, *, tone_hz: int = 220) -> AsyncIterator[None]:
    """The person is in the room and publishes while the block lasts."""
    from livekit import rtc

    room = rtc.Room()
    # Decoding each other would cost more than everything else.
    await room.connect(url, person.token, rtc.RoomOptions(auto_subscribe=False))
    picture = rtc.VideoSource(WIDTH, HEIGHT)
    sound = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=4 * TONE_FRAME_MS)
    over = asyncio.Event()
    feeds = [
        asyncio.create_task(_feed_picture(picture, person, over)),
        asyncio.create_task(_feed_tone(sound, tone_hz, over)),
    ]
    try:
        await room.local_participant.publish_track(
            rtc.LocalVideoTrack.create_video_track("camera", picture),
            rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_CAMERA,
                simulcast=False,
                # At the picture's own rate libwebrtc drops one frame in six.
                video_encoding=rtc.VideoEncoding(max_framerate=60, max_bitrate=BITRATE),
            ),
        )
        await room.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("microphone", sound),
            rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
        )
        yield
    finally:
        # Told, not cancelled: a frame under way is taken first, which libwebrtc complains about otherwise.
        over.set()
        await asyncio.gather(*feeds, return_exceptions=True)
        await room.disconnect()
        await sound.aclose()
        await picture.aclose()


async def _feed_picture(source: Any, person: Person, over: asyncio.Event) -> None:
    from livekit import rtc

    frames = [rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, data) for data in picture_loop(person)]
    loop = asyncio.get_running_loop()
    began, shown = loop.time(), 0
    while not over.is_set():
        source.capture_frame(frames[shown % len(frames)])
        # Frames that are too late are left out, not hurried after.
        shown = max(shown + 1, math.ceil((loop.time() - began) * FPS))
        await asyncio.sleep(began + shown / FPS - loop.time())


async def _feed_tone(source: Any, tone_hz: int, over: asyncio.Event) -> None:
    from livekit import rtc

    samples = SAMPLE_RATE * TONE_FRAME_MS // 1000
    # Frequencies that are multiples of 20 Hz come back to the same phase after a frame.
    wave = array(
        "h", (int(LOUDNESS * math.sin(2 * math.pi * tone_hz * n / SAMPLE_RATE)) for n in range(samples))
    )
    frame = rtc.AudioFrame(wave.tobytes(), SAMPLE_RATE, 1, samples)
    while not over.is_set():
        # Waits while the queue is full, which is the pace.
        await source.capture_frame(frame)


def picture_loop(person: Person) -> list[bytes]:
    """The frames of one loop as I420: a field of the person's colour, a disc that goes round, the name."""
    import numpy as np

    count = LOOP_SEC * FPS
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    angle = math.radians(person.hue)
    chroma = b"".join(
        bytes([int(128 + 56 * share)]) * (WIDTH * HEIGHT // 4) for share in (math.cos(angle), math.sin(angle))
    )
    name = _lettering(person.name)
    top, left = (HEIGHT - name.shape[0]) // 2, (WIDTH - name.shape[1]) // 2
    frames = []
    for number in range(count):
        turn = 2 * math.pi * number / count
        x, y = WIDTH / 2 + 120 * math.cos(turn), HEIGHT / 2 + 60 * math.sin(turn)
        light = np.where((columns - x) ** 2 + (rows - y) ** 2 < 20**2, 200, 90).astype(np.uint8)
        light[top : top + name.shape[0], left : left + name.shape[1]][name] = 235
        frames.append(light.tobytes() + chroma)
    return frames


def _lettering(text: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where the letters are: rows × columns of pixels; letters that we have not are blank."""
    import numpy as np

    blank = (0,) * 7
    cells = [
        [
            bool(row >> bit & 1)
            for letter in text.upper()
            for row in (_LETTERS.get(letter, blank)[y],)
            for bit in range(5, -1, -1)
        ]
        for y in range(7)
    ]
    return np.kron(np.array(cells, dtype=bool), np.ones((LETTER_PX, LETTER_PX), dtype=bool))


if __name__ == "__main__":
    asyncio.run(main())
