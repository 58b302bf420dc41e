"""One stream of packets of a subscribed track: put in order, built into frames, reported about."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.passthrough.frames import FrameBuilder, assembler
from adapters.passthrough.media import Frame
from adapters.passthrough.reorder import ReorderBuffer
from adapters.passthrough.rtp import Packet, Reception, SenderReport, Unwrapper
from adapters.passthrough.sdp import Codec, Media

# How long the server gets to send a key frame of its own accord, and between two requests.
_KEY_PATIENCE_SEC = 0.4


@dataclass(frozen=True, slots=True)
class ClockReading:
    """At `ntp_ns` since 1970, by the common clock of all streams of the server, the stream stood at `timestamp`."""

    ntp_ns: int
    timestamp: int


class Stream:
    """`on_frame` gets each frame in order. Times without `ns` are seconds of a monotonic clock.

    A stream belongs to one connection; after another join the same track comes as another one.
    """

    def __init__(
        self, media: Media, ssrc: int, trailer: bytes, on_frame: Callable[[Stream, Frame], None], now: float
    ) -> None:
        self.media = media
        self.ssrc = ssrc
        self.codec: Codec | None = None
        self.frames = 0
        self.broken = 0
        self.readings: list[ClockReading] = []
        self._trailer = trailer
        self._on_frame = on_frame
        nacked = any(codec.nack for codec in media.codecs.values())
        self._order = ReorderBuffer(nack=nacked)
        self._timestamps = Unwrapper(32)
        self._builder: FrameBuilder | None = None
        self._asked_key_at = now
        self._report: SenderReport | None = None
        self._report_at = 0.0
        self._before = (0, 0)
        self._jitter = _Jitter()

    @property
    def track_id(self) -> str:
        return self.media.track_id

    @property
    def waiting(self) -> bool:
        return self._order.waiting

    @property
    def lost(self) -> int:
        return self._order.lost

    def packet(self, packet: Packet, now: float) -> None:
        codec = self.codec
        if codec is None or codec.payload_type != packet.payload_type:
            codec = self._choose(packet.payload_type)
            if codec is None:
                return
        self._jitter.add(packet.timestamp, now, codec.clock_rate)
        self._take(self._order.add(packet, now))

    def sender_report(self, report: SenderReport, now: float) -> None:
        self._report, self._report_at = report, now
        if self.codec is not None:
            self.readings.append(ClockReading(report.ntp_ns, self._timestamps.unwrap(report.timestamp)))

    def service(self, now: float) -> tuple[list[int], bool]:
        """The sequence numbers to ask for again, and whether a key frame must be asked for."""
        ask, released = self._order.service(now)
        self._take(released)
        return ask, self._key_due(now)

    def finish(self) -> None:
        """Gives out what waits for packets that won't come any more."""
        self._take(self._order.flush())

    def reception(self, now: float) -> Reception | None:
        """For the next receiver report."""
        order = self._order
        if not order.received:
            return None
        received, lost = order.received - self._before[0], order.lost - self._before[1]
        self._before = (order.received, order.lost)
        middle = self._report.middle if self._report else 0
        since = int((now - self._report_at) * 65536) if self._report else 0
        fraction = lost * 256 // (lost + received) if lost else 0
        return Reception(self.ssrc, fraction, order.lost, order.highest, self._jitter.value, middle, since)

    def _key_due(self, now: float) -> bool:
        if (
            self._builder is None
            or not self._builder.wants_key
            or now - self._asked_key_at < _KEY_PATIENCE_SEC
        ):
            return False
        self._asked_key_at = now
        return True

    def want_key(self) -> None:
        """A key frame will be asked for at once, and nothing comes before it."""
        if self._builder is not None:
            self._builder.wants_key = True
        self._asked_key_at = 0.0

    def _choose(self, payload_type: int) -> Codec | None:
        codec = self.media.codecs.get(payload_type)
        if codec is not None:
            try:
                self._builder = (
                    FrameBuilder(codec.name, self._trailer) if self.media.kind == "video" else None
                )
                assembler(codec.name)
            except KeyError:
                return None
            self.codec = codec
        return codec

    def _take(self, packets: list[Packet]) -> None:
        for packet in packets:
            if self._builder is None:
                if packet.payload:
                    self._give(packet, packet.payload, key=True)
                continue
            picture = self._builder.push(packet)
            if packet.lost:
                # Asked for in the next round, without patience.
                self._asked_key_at = 0.0
            if picture is not None:
                self._give(packet, picture.data, picture.key, picture.width, picture.height)

    def _give(self, packet: Packet, data: bytes, key: bool, width: int = 0, height: int = 0) -> None:
        self.frames += 1
        timestamp = self._timestamps.unwrap(packet.timestamp)
        self._on_frame(self, Frame(data, timestamp, key, time.time_ns(), width, height))


class _Jitter:
    """RFC 3550 section 6.4.1."""

    __slots__ = ("_timestamp", "_transit", "_value")

    def __init__(self) -> None:
        self._timestamp: int | None = None
        self._transit = 0.0
        self._value = 0.0

    @property
    def value(self) -> int:
        return int(self._value)

    def add(self, timestamp: int, now: float, rate: int) -> None:
        if timestamp == self._timestamp:
            return
        transit = now * rate - timestamp
        if self._timestamp is not None and abs(timestamp - self._timestamp) < 10 * rate:
            self._value += (abs(transit - self._transit) - self._value) / 16
        self._timestamp, self._transit = timestamp, transit
