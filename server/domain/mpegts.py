"""A small reader of our own MPEG-TS segments: times, key frame at the start, codec string; no decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

PACKET = 188
SYNC = 0x47
CLOCK = 90_000
_H264, _AAC = 0x1B, 0x0F
_AAC_FRAME_SAMPLES = 1024
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_TIMES = 1 << 33
# As many as sound may end with when it is silence.
_FEW_ZEROS = 64
# More pictures than reordering reaches over.
_REORDERED = 32
# Enough of the first picture to hold access unit delimiter, SPS, PPS, x264's SEI and the IDR slice header.
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """What one segment holds. PTS in 90 kHz ticks, None where the stream is absent.

    `video_last_pts` is the latest shown picture's own PTS, `audio_end_pts` the end of the last AAC frame.
    `video_codec` is RFC 6381 (`avc1.64001f`), "" without parameter sets.
    """

    video_frames: int
    video_first_pts: int | None
    video_last_pts: int | None
    audio_first_pts: int | None
    audio_end_pts: int | None
    starts_with_idr: bool
    video_codec: str
    audio_codec: str

    @property
    def codecs(self) -> tuple[str, ...]:
        return tuple(codec for codec in (self.video_codec, self.audio_codec) if codec)


class NotTransportStream(ValueError):
    """The bytes are not whole 188-byte packets that start with 0x47, or carry no program."""


@dataclass(frozen=True, slots=True)
class WholeStart:
    """As far as a segment that was left unfinished can be used: its first `size` bytes, `duration_sec` long."""

    size: int
    duration_sec: float


def scan_segment(data: bytes) -> SegmentScan:
    """Raise NotTransportStream for anything but a complete transport stream."""
    if not data or len(data) % PACKET or data[::PACKET].count(SYNC) * PACKET != len(data):
        raise NotTransportStream("not whole MPEG-TS packets")
    try:
        return _scan(data)
    except IndexError as error:
        raise NotTransportStream("a header ends early") from error


def whole_start(data: bytes) -> WholeStart:
    """Up to the last picture and sound that are whole, and before which none is missing.

    Raise NotTransportStream when nothing of it can be played: no program, no key frame first, less than two pictures.
    """
    data = data[: _written(data)]
    try:
        pids = _streams(data)
        video_pid, audio_pid = pids.get(_H264), pids.get(_AAC)
        units = [(at, pid) for at in _unit_starts(data) if (pid := _pid(data, at)) in (video_pid, audio_pid)]
        if units and not _ends_whole(data, units[-1]):
            data = data[: units.pop()[0]]
        if video_pid is None:
            return WholeStart(len(data), _sound_sec(data))
        return _with_pictures(data, [at for at, pid in units if pid == video_pid])
    except IndexError as error:
        raise NotTransportStream("a header ends early") from error


def _written(data: bytes) -> int:
    """Bytes of whole packets; after a power cut, zeros may follow that were never written."""
    zeros = len(data) - len(data.rstrip(b"\0"))
    limit = len(data) - (zeros if zeros > _FEW_ZEROS else 0)
    end = 0
    while end + PACKET <= limit and data[end] == SYNC:
        end += PACKET
    return end


def _ends_whole(data: bytes, unit: tuple[int, int]) -> bool:
    """Whether the last unit is known to be complete: its last packet is filled up, unless its bytes happened to fit."""
    start, pid = unit
    last = start
    for at in range(start, len(data), PACKET):
        if _pid(data, at) == pid and data[at + 3] & 0x10:
            last = at
    if not data[last + 3] & 0x20:
        return False
    length = data[last + 4]
    return length == 0 or length > (7 if data[last + 5] & 0x10 else 1)


def _with_pictures(data: bytes, pictures: Sequence[int]) -> WholeStart:
    first = _pts(data, pictures[0]) if pictures else 0
    times = [(_pts(data, at) - first + _TIMES // 2) % _TIMES for at in pictures]
    count = _unbroken(times)
    if count < 2 or not _parse_picture(_gather(data, pictures[0], _pid(data, pictures[0]), _HEAD_BYTES))[0]:
        raise NotTransportStream("no picture can be shown")
    size = pictures[count] if count < len(pictures) else len(data)
    shown = max(times[:count]) - min(times[:count])
    # The last picture lasts as long as the others.
    return WholeStart(size, shown * count / (count - 1) / CLOCK)


def _unbroken(times: Sequence[int]) -> int:
    """How many of the pictures, in decoding order, leave no hole between those that are shown."""
    for count in range(len(times), max(len(times) - _REORDERED, 1), -1):
        steps = [later - earlier for earlier, later in pairwise(sorted(times[:count]))]
        if max(steps) < 1.5 * min(steps):
            return count
    return len(times)


def _sound_sec(data: bytes) -> float:
    scan = _scan(data)
    if scan.audio_first_pts is None or scan.audio_end_pts is None:
        raise NotTransportStream("no sound can be heard")
    return (scan.audio_end_pts - scan.audio_first_pts) % _TIMES / CLOCK


def _scan(data: bytes) -> SegmentScan:
    pids = _streams(data)
    video_pid, audio_pid = pids.get(_H264), pids.get(_AAC)
    video: list[int] = []
    audio_first: int | None = None
    audio_last: tuple[int, int] | None = None
    head = b""
    for offset in _unit_starts(data):
        pid = _pid(data, offset)
        if pid == video_pid:
            if not video:
                head = _gather(data, offset, pid, _HEAD_BYTES)
            video.append(_pts(data, offset))
        elif pid == audio_pid:
            pts = _pts(data, offset)
            audio_first = pts if audio_first is None else audio_first
            audio_last = (pts, offset)
    idr, codec = _parse_picture(head)
    return SegmentScan(
        video_frames=len(video),
        video_first_pts=min(video, default=None),
        video_last_pts=max(video, default=None),
        audio_first_pts=audio_first,
        audio_end_pts=_audio_end(data, audio_last, audio_pid),
        starts_with_idr=idr,
        video_codec=codec,
        audio_codec="mp4a.40.2" if audio_pid is not None else "",
    )


def _unit_starts(data: bytes) -> Iterator[int]:
    for number, flags in enumerate(data[1::PACKET]):
        if flags & 0x40:
            yield number * PACKET


def _pid(data: bytes, offset: int) -> int:
    return (data[offset + 1] & 0x1F) << 8 | data[offset + 2]


def _payload(data: bytes, offset: int) -> int:
    """Where the packet's payload begins; the packet's end if it has none."""
    control = data[offset + 3] >> 4 & 3
    if not control & 1:
        return offset + PACKET
    return min(offset + PACKET, offset + 4 + (1 + data[offset + 4] if control & 2 else 0))


def _streams(data: bytes) -> dict[int, int]:
    """Stream type → PID from the first program."""
    program = _section(data, 0)
    if program is None:
        raise NotTransportStream("no program association table")
    table = data[program : program + PACKET]
    pmt_pid = (table[10] & 0x1F) << 8 | table[11]
    start = _section(data, pmt_pid)
    if start is None:
        raise NotTransportStream("no program map table")
    section = data[start : start + PACKET]
    end = 3 + ((section[1] & 0x0F) << 8 | section[2]) - 4
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    found: dict[int, int] = {}
    while at + 5 <= end:
        found.setdefault(section[at], (section[at + 1] & 0x1F) << 8 | section[at + 2])
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return found


def _section(data: bytes, pid: int) -> int | None:
    for offset in _unit_starts(data):
        if _pid(data, offset) == pid:
            start = _payload(data, offset)
            return start + 1 + data[start]
    return None


def _pts(data: bytes, offset: int) -> int:
    start = _payload(data, offset)
    if data[start : start + 3] != b"\0\0\1" or not data[start + 7] & 0x80:
        raise NotTransportStream("a packet without presentation time")
    b = data[start + 9 : start + 14]
    return (b[0] >> 1 & 7) << 30 | b[1] << 22 | (b[2] >> 1) << 15 | b[3] << 7 | b[4] >> 1


def _gather(data: bytes, offset: int, pid: int, limit: int) -> bytes:
    """Up to `limit` bytes of the elementary stream of the unit that starts at `offset`."""
    start = _payload(data, offset)
    parts = [data[start + 9 + data[start + 8] : offset + PACKET]]
    size = len(parts[0])
    for at in range(offset + PACKET, len(data), PACKET):
        if size >= limit:
            break
        if _pid(data, at) != pid:
            continue
        if data[at + 1] & 0x40:
            break
        parts.append(data[_payload(data, at) : at + PACKET])
        size += len(parts[-1])
    return b"".join(parts)


def _parse_picture(head: bytes) -> tuple[bool, str]:
    idr, codec = False, ""
    at = head.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(head):
        kind = head[at + 3] & 0x1F
        if kind == 7 and at + 7 <= len(head):
            codec = f"avc1.{head[at + 4 : at + 7].hex()}"
        elif kind in (1, 5):
            idr = kind == 5
            break
        at = head.find(b"\0\0\1", at + 3)
    return idr, codec


def _audio_end(data: bytes, last: tuple[int, int] | None, pid: int | None) -> int | None:
    if last is None or pid is None:
        return None
    pts, offset = last
    unit = _gather(data, offset, pid, len(data))
    at = frames = 0
    rate = 48_000
    while at + 7 <= len(unit) and unit[at] == 0xFF and unit[at + 1] & 0xF0 == 0xF0:
        rate = _ADTS_RATES[unit[at + 2] >> 2 & 0x0F]
        length = (unit[at + 3] & 3) << 11 | unit[at + 4] << 3 | unit[at + 5] >> 5
        if length < 7:
            break
        at, frames = at + length, frames + 1
    return pts + frames * _AAC_FRAME_SAMPLES * CLOCK // rate
