"""Packets into frames: the payload formats of H.264, VP8, VP9, AV1 and Opus (RFC 6184, 7741, 9628, AV1-RTP, 7587)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from adapters.passthrough import h264, obu, vpx
from adapters.passthrough.media import Picture
from adapters.passthrough.rtp import Packet

# LiveKit's own farewell pictures, sent when a track is muted or taken back, are 2×2 or 8×8.
_FAREWELL_SIZE = 16


Assemble = Callable[[Sequence[bytes]], Picture | None]


def _assemble_opus(parts: Sequence[bytes]) -> Picture | None:
    return Picture(parts[0], key=True) if parts[0] else None


_ASSEMBLERS: Mapping[str, Assemble] = {
    "vp8": vpx.assemble_vp8,
    "vp9": vpx.assemble_vp9,
    "av1": obu.assemble,
    "opus": _assemble_opus,
}


def assembler(codec: str) -> Assemble:
    """By the small name of the codec. Raise KeyError for what can't be recorded."""
    return h264.Assembler() if codec == "h264" else _ASSEMBLERS[codec]


class FrameBuilder:
    """Frames of one video stream; after a loss nothing comes until the next key frame, and `wants_key` says so.

    `trailer` marks what the server made up itself.
    """

    def __init__(self, codec: str, trailer: bytes = b"") -> None:
        self._assemble = assembler(codec)
        self._trailer = trailer
        self._parts: list[bytes] = []
        self._timestamp: int | None = None
        self._skipping: int | None = None
        self.wants_key = True
        self.broken = 0

    def push(self, packet: Packet) -> Picture | None:
        """The frame that this packet, in order, completes."""
        if packet.lost:
            self._break(packet)
        if not packet.payload or packet.timestamp == self._skipping:
            return None
        self._skipping = None
        if packet.timestamp != self._timestamp:
            # Its end never came, though no packet is missing: a sender that dropped the rest.
            self._parts = []
            self._timestamp = packet.timestamp
        self._parts.append(packet.payload)
        if not packet.marker:
            return None
        parts, self._parts, self._timestamp = self._parts, [], None
        return self._checked(parts)

    def _break(self, packet: Packet) -> None:
        self.broken += 1
        self.wants_key = True
        self._parts, self._timestamp = [], None
        # Its first packet may be among those that are gone.
        self._skipping = packet.timestamp

    def _checked(self, parts: Sequence[bytes]) -> Picture | None:
        picture = self._assemble(parts)
        if picture is None:
            return None
        if (self._trailer and picture.data.endswith(self._trailer)) or (
            picture.key and 0 < picture.width <= _FAREWELL_SIZE
        ):
            self.wants_key = True
            return None
        if picture.key:
            self.wants_key = False
        return None if self.wants_key else picture
