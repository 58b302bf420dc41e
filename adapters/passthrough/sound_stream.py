"""A sound track as plain samples to websockets, in step with the wall clock (livekit-surface section 4.3)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from adapters.passthrough.files import AUDIO_CLOCK, opus_duration
from adapters.passthrough.media import Frame
from adapters.passthrough.stream import Stream
from adapters.passthrough.tape import Tape
from adapters.recorder.encoders import Encoded
from adapters.recorder.outputs.dial import trusted_context
from adapters.recorder.outputs.streams import Streams
from adapters.recorder.outputs.tcp import Resolve
from adapters.recorder.outputs.websocket import WebsocketLink
from adapters.recorder.streaming import Watched
from server.domain.egress import Destination
from server.ports.recorder import FromRecorder, RecorderPlan

if TYPE_CHECKING:
    from av import AudioCodecContext
    from numpy.typing import NDArray

_TICK_SEC = 0.02
# What arrives later than this is heard as silence.
_DELAY = AUDIO_CLOCK // 10
_FAR = AUDIO_CLOCK // 2
# Without a packet for so long, the track is as good as muted.
_SILENT_SEC = 2.0
_TIME_BASE = Fraction(1, AUDIO_CLOCK)


class SoundStream:
    """S16LE, 48 kHz, stereo, silence where nothing came; `{"muted": …}` as text when that changes.

    `resolve` decides which addresses may be connected to.
    """

    def __init__(
        self,
        plan: RecorderPlan,
        report: Callable[[FromRecorder], None],
        *,
        resolve: Resolve,
    ) -> None:
        tls = trusted_context()
        self._streams = Streams(
            lambda destination: WebsocketLink(destination.url, resolve=resolve, tls=tls),
            report=report,
            begins_at_key=False,
            retries=False,
        )
        self._streams.want(plan.destinations)
        self._watched = Watched(plan)
        self._playout = _Playout()
        self._started = 0.0
        self._heard_at = 0.0
        self._muted = False
        self._told_muted = False
        self._ticking: asyncio.Task[None] | None = None
        self.paused = False
        self.sent = 0

    @property
    def duration_ms(self) -> int:
        return self.sent * 1000 // AUDIO_CLOCK

    @property
    def over(self) -> str:
        """See `Watched.over`."""
        return self._watched.over(self._streams.running)

    def want(self, destinations: Sequence[Destination]) -> None:
        self._watched.want(destinations)
        self._streams.want(destinations)

    @property
    def started(self) -> bool:
        return self._ticking is not None

    def start(self) -> None:
        """The clock runs from now on."""
        self._started = self._heard_at = time.monotonic()
        self._ticking = asyncio.create_task(self._tick(), name="sound")

    def mute(self, muted: bool) -> None:
        self._muted = muted

    def frame(self, stream: Stream, frame: Frame) -> None:
        self._heard_at = time.monotonic()
        self._playout.put(stream, frame, self._now())

    async def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await asyncio.to_thread(self._streams.close)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SEC)
            self._tell_muted()
            samples = self._playout.take(self._now() - _DELAY)
            if samples is None:
                continue
            if self.paused:
                samples[:] = 0
            data = samples.tobytes()
            self._send("audio", data, len(samples))
            self.sent += len(samples)

    def _now(self) -> int:
        return int((time.monotonic() - self._started) * AUDIO_CLOCK)

    def _tell_muted(self) -> None:
        muted = self._muted or time.monotonic() - self._heard_at > _SILENT_SEC
        if muted != self._told_muted:
            self._told_muted = muted
            text = json.dumps({"muted": muted}, separators=(",", ":")).encode()
            self._send("text", text, 0)

    def _send(self, media: str, data: bytes, duration: int) -> None:
        at = self.sent
        self._streams.put(
            Encoded(media, data, pts=at, dts=at, duration=duration, key=True, time_base=_TIME_BASE)
        )


class _Playout:
    """Decoded blocks by their position, counted in samples from the start of the clock."""

    def __init__(self) -> None:
        from av.audio.resampler import AudioResampler

        self._decoder = _decoder()
        self._resampler = AudioResampler(format="s16", layout="stereo", rate=AUDIO_CLOCK)
        self._stream: Stream | None = None
        self._anchor = (0, 0)
        self._tape = Tape()

    def put(self, stream: Stream, frame: Frame, now: int) -> None:
        position = self._anchor[0] + frame.timestamp - self._anchor[1]
        if (
            stream is not self._stream
            or not self._tape.taken - opus_duration(frame.data) < position < now + _FAR
        ):
            # Also where the sender's clock has drifted away from ours.
            self._stream, position = stream, now
            self._anchor = (now, frame.timestamp)
        self._tape.put(position, self._decode(frame.data))

    def take(self, until: int) -> NDArray[np.int16] | None:
        """What lies between the last call's `until` and this one's."""
        count = until - self._tape.taken
        if count <= 0:
            return None
        samples = self._tape.take(until)
        return samples if samples is not None else np.zeros((count, 2), np.int16)

    def _decode(self, data: bytes) -> NDArray[np.int16]:
        from av import FFmpegError, Packet

        blocks: list[NDArray[np.int16]] = []
        # A packet that is none is heard as silence.
        with contextlib.suppress(FFmpegError):
            for decoded in self._decoder.decode(Packet(data)):
                decoded.pts = None
                resampled = self._resampler.resample(decoded)
                blocks += [np.asarray(one.to_ndarray(), np.int16).reshape(-1, 2) for one in resampled]
        return np.concatenate(blocks) if blocks else np.zeros((0, 2), np.int16)


def _decoder() -> AudioCodecContext:
    from av import AudioCodecContext

    decoder = AudioCodecContext.create("libopus", "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.sample_rate = AUDIO_CLOCK
    decoder.layout = "stereo"
    return decoder
