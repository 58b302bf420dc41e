"""The one video and one audio encoder of a recorder: frames and samples in, packets in decoding order out."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from server.domain.egress import AudioEncoding, VideoEncoding

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

SAMPLE_RATE = 48_000
_BT709 = 1  # the number of primaries, transfer and matrix alike in ITU-T H.273
_LIMITED = 1
_THREAD_PIXELS = 40_000_000  # a second
_AUDIO_CODECS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame"}
# MPEG-1 layer III knows these only; MPEG-4 AAC has more but players do not.
_RATES = {"opus": (48_000,), "mp3": (32_000, 44_100, 48_000)}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One packet, shared by all outputs. `pts`, `dts` and `duration` count `time_base`, from the program's time 0.

    Video comes as H.264 in Annex B or as VP9. `dts` is below `pts`, and below 0 at the start, where frames are reordered.
    """

    media: str
    data: bytes
    pts: int
    dts: int
    duration: int
    key: bool
    time_base: Fraction

    @property
    def start(self) -> float:
        """Seconds from time 0 at which it is shown or heard."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """When pictures must be key frames: the numbers divisible by one of `every`; none: the encoder decides."""

    every: tuple[int, ...]

    @classmethod
    def planned(cls, video: VideoEncoding, *, segment_sec: float, streams: bool) -> KeyFrames:
        """`key_frame_sec` if given, else 4 s when something is streamed; and at each boundary of segments."""
        seconds = [segment_sec] if segment_sec else []
        if video.key_frame_sec > 0:
            seconds.append(video.key_frame_sec)
        elif streams:
            seconds.append(4.0)
        return cls(tuple(sorted({max(1, round(sec * video.fps)) for sec in seconds})))

    def wants(self, number: int) -> bool:
        return any(number % count == 0 for count in self.every)


class Encoders:
    """Called from one thread. A stream that is not encoded is None in `video` or `audio`."""

    def __init__(
        self,
        video: VideoEncoding | None,
        audio: AudioEncoding | None,
        *,
        keys: KeyFrames,
        vbv_sec: float = 2.0,
    ) -> None:
        import av

        # Nothing is written to it: it only owns the streams, which are the templates of every muxer's.
        self._host: OutputContainer = av.open(os.devnull, "w", format="null")
        self.video: VideoStream | None = None
        self.audio: AudioStream | None = None
        self._keys = keys
        if video is not None:
            self.video = _add_video(self._host, video, keys, vbv_sec)
        if audio is not None and audio.codec != "pcm":
            self.audio = _add_audio(self._host, audio)
        if self._host.streams:
            self._host.start_encoding()
        self._samples = 0

    def encode_video(self, frame: av.VideoFrame, number: int, *, key: bool) -> Iterator[Encoded]:
        """`key` asks for a key frame here, besides those that are planned."""
        from av.video.frame import PictureType

        assert self.video is not None
        frame.pts = number
        frame.time_base = self.video.codec_context.time_base
        frame.pict_type = PictureType.I if key or self._keys.wants(number) else PictureType.NONE
        return self._drain("video", self.video.codec_context.encode(frame))

    def encode_audio(self, samples: np.ndarray[Any, Any]) -> Iterator[Encoded]:
        """Samples as `Program.audio` takes them."""
        import av

        assert self.audio is not None
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._samples
        self._samples += len(samples)
        return self._drain("audio", self.audio.codec_context.encode(frame))

    def flush(self, media: str) -> Iterator[Encoded]:
        """What the encoder still holds; it takes nothing afterwards."""
        stream = self.video if media == "video" else self.audio
        assert stream is not None
        return self._drain(media, stream.codec_context.encode(None))

    def _drain(self, media: str, packets: Iterable[av.Packet[Any]]) -> Iterator[Encoded]:
        for packet in packets:
            assert packet.pts is not None
            assert packet.dts is not None
            yield Encoded(
                media,
                bytes(packet),
                packet.pts,
                packet.dts,
                packet.duration or 1,
                packet.is_keyframe,
                packet.time_base,
            )


class Interleaver:
    """Puts packets of both streams in one order of time, so that a cut at a key frame cuts the sound there too.

    Holds a stream back until the other has come as far; video is compared by its place in decoding order.
    """

    def __init__(self, medias: Iterable[str]) -> None:
        self._waiting: dict[str, deque[Encoded]] = {media: deque() for media in medias}
        self._delay = 0

    def push(self, packet: Encoded) -> Iterator[Encoded]:
        if packet.media == "video":
            self._delay = max(self._delay, -packet.dts)
        self._waiting[packet.media].append(packet)
        while all(self._waiting.values()):
            yield min(self._waiting.values(), key=lambda queue: self._place(queue[0])).popleft()

    def flush(self) -> Iterator[Encoded]:
        while any(self._waiting.values()):
            queues = [queue for queue in self._waiting.values() if queue]
            yield min(queues, key=lambda queue: self._place(queue[0])).popleft()

    def _place(self, packet: Encoded) -> float:
        if packet.media == "video":
            return float((packet.dts + self._delay) * packet.time_base)
        return packet.start


def add_streams(container: OutputContainer, encoders: Encoders) -> dict[str, Any]:
    """Streams for the encoders' packets in another container, by medium."""
    found = {"video": encoders.video, "audio": encoders.audio}
    return {
        media: container.add_stream_from_template(template, opaque=True)
        for media, template in found.items()
        if template is not None
    }


def packet_for(stream: Any, packet: Encoded, offset: Fraction = Fraction(0)) -> av.Packet[Any]:
    """A packet of one's own for one muxer, which changes what it is given. `offset` in seconds."""
    import av

    made: av.Packet[Any] = av.Packet(packet.data)
    shift = int(offset / packet.time_base)
    made.stream = stream
    made.time_base = packet.time_base
    made.pts = packet.pts + shift
    made.dts = packet.dts + shift
    made.duration = packet.duration
    made.is_keyframe = packet.key
    return made


def _add_video(host: OutputContainer, wanted: VideoEncoding, keys: KeyFrames, vbv_sec: float) -> VideoStream:
    from av.codec.context import Flags

    codec = "libvpx-vp9" if wanted.codec == "vp9" else "libx264"
    stream: VideoStream = host.add_stream(codec, rate=wanted.fps)  # type: ignore[assignment]
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = wanted.width, wanted.height, "yuv420p"
    context.time_base = Fraction(1, wanted.fps)
    context.framerate = Fraction(wanted.fps, 1)
    context.bit_rate = wanted.kbps * 1000
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED
    context.flags |= Flags.global_header
    if keys.every:
        context.gop_size = max(keys.every)
    context.options = _vp9(wanted) if wanted.codec == "vp9" else _x264(wanted, keys, vbv_sec)
    # Slices would cost bits; frame threads cost a frame of delay and some 15 % more time each.
    context.thread_type = "FRAME"
    context.thread_count = _threads(wanted)
    return stream


def _threads(wanted: VideoEncoding) -> int:
    """As few as keep up: one does 720p at 30 frames in half of its time."""
    return min(math.ceil(wanted.width * wanted.height * wanted.fps / _THREAD_PIXELS), os.cpu_count() or 1, 4)


def _x264(wanted: VideoEncoding, keys: KeyFrames, vbv_sec: float) -> dict[str, str]:
    options = {
        "preset": "veryfast",
        "profile": wanted.codec.removeprefix("h264_"),
        "maxrate": f"{wanted.kbps}k",
        "bufsize": f"{round(wanted.kbps * vbv_sec)}k",
        "forced-idr": "1",
    }
    if keys.every:
        options["sc_threshold"] = "0"
    return options


def _vp9(wanted: VideoEncoding) -> dict[str, str]:
    return {
        "deadline": "realtime",
        "cpu-used": "8",
        "row-mt": "1",
        "tile-columns": "2" if wanted.width >= 1024 else "1",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "error-resilient": "0",
        "maxrate": f"{wanted.kbps}k",
        "bufsize": f"{wanted.kbps * 2}k",
    }


def _add_audio(host: OutputContainer, wanted: AudioEncoding) -> AudioStream:
    from av.codec.context import Flags

    rates = _RATES.get(wanted.codec)
    rate = wanted.hz if rates is None or wanted.hz in rates else max(rates)
    stream: AudioStream = host.add_stream(_AUDIO_CODECS[wanted.codec], rate=rate)  # type: ignore[assignment]
    context = stream.codec_context
    context.layout = "stereo"
    context.bit_rate = wanted.kbps * 1000
    context.time_base = Fraction(1, rate)
    context.flags |= Flags.global_header
    return stream
