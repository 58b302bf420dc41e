"""What an egress asks of a worker, in processor cores: so that a worker takes no more than it can carry.

The figures are rounded up from `make bench` (benchmarks/results.md), with people who move: still pictures cost less.
"""

from __future__ import annotations

from server.domain.egress import EgressPlan, VideoEncoding
from server.domain.egress_sources import RoomSource, RoomTracksSource, TrackSource, WebSource

TYPICAL_CORES = 0.6
"""A composed 720p30 recording: what must be free before a worker takes one more."""

_TRACK = 0.05
_ROOM_TRACKS = 0.15
_SOUND = 0.1
_RECEIVE = 0.25
_BROWSER = 1.0
# Encoding grows with the pixels a second, from 720p30.
_ENCODE_720P30 = 0.35
_PIXELS_720P30 = 1280 * 720 * 30
_VP9_FACTOR = 2.5


def cores(plan: EgressPlan) -> float:
    """Cores while it runs, more likely less."""
    match plan.source:
        case TrackSource():
            return _TRACK
        case RoomTracksSource():
            return _ROOM_TRACKS
        case WebSource():
            taking_in = _BROWSER
        case RoomSource(base_url=template) if template:
            taking_in = _BROWSER
        case _:
            taking_in = _RECEIVE if plan.encoding.video else _SOUND
    return round(taking_in + _encoding(plan.encoding.video), 3)


def _encoding(video: VideoEncoding | None) -> float:
    if video is None:
        return 0.0
    share = _ENCODE_720P30 * video.width * video.height * video.fps / _PIXELS_720P30
    return share * _VP9_FACTOR if video.codec == "vp9" else share
