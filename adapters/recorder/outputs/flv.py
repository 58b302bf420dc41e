"""Encoded packets as FLV tag bodies, which is what RTMP carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from adapters.recorder.encoders import Encoded, Encoders

AUDIO_TAG = 8
VIDEO_TAG = 9
_START_CODE = re.compile(rb"\x00\x00\x00?\x01")
_SPS, _PPS, _DELIMITER = 7, 8, 9
_AVC = 7
_AAC = 10
# AAC, "44 kHz", 16 bit, stereo: constants for AAC, whose own header says the truth.
_AAC_BYTE = 0xAF


@dataclass(frozen=True, slots=True)
class Tag:
    """`at` is the decoding time in ms since the connection's first packet."""

    kind: int
    body: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Headers:
    """What a stream must begin with: its description and the decoders' configurations."""

    metadata: Mapping[str, str | float | bool]
    video: bytes
    audio: bytes


def headers(encoders: Encoders) -> Headers:
    """Empty bytes where a stream is not there."""
    metadata: dict[str, str | float | bool] = {"encoder": "BaxCloud"}
    video = audio = b""
    if encoders.video is not None:
        context = encoders.video.codec_context
        metadata |= {
            "width": float(context.width),
            "height": float(context.height),
            "framerate": float(context.framerate),
            "videodatarate": (context.bit_rate or 0) / 1000,
            "videocodecid": float(_AVC),
        }
        video = bytes([0x10 | _AVC, 0, 0, 0, 0]) + _avc_configuration(context.extradata or b"")
    if encoders.audio is not None:
        sound = encoders.audio.codec_context
        metadata |= {
            "audiodatarate": (sound.bit_rate or 0) / 1000,
            "audiosamplerate": float(sound.sample_rate),
            "audiosamplesize": 16.0,
            "stereo": True,
            "audiocodecid": float(_AAC),
        }
        audio = bytes([_AAC_BYTE, 0]) + (sound.extradata or b"")
    return Headers(metadata, video, audio)


def tag(packet: Encoded, base: Fraction) -> Tag:
    """H.264 in Annex B or AAC as a tag; `base` is the time in seconds that becomes 0."""
    decoded, shown = (
        max(0, round((time * packet.time_base - base) * 1000)) for time in (packet.dts, packet.pts)
    )
    if packet.media == "audio":
        return Tag(AUDIO_TAG, bytes([_AAC_BYTE, 1]) + packet.data, shown)
    first = (0x10 if packet.key else 0x20) | _AVC
    # From the rounded times, so that pictures are shown evenly.
    composition = (shown - decoded).to_bytes(3, "big", signed=True)
    return Tag(VIDEO_TAG, bytes([first, 1]) + composition + _length_prefixed(packet.data), decoded)


def _units(data: bytes) -> list[bytes]:
    return [unit for unit in _START_CODE.split(data) if unit]


def _length_prefixed(data: bytes) -> bytes:
    units = (unit for unit in _units(data) if unit[0] & 0x1F != _DELIMITER)
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def _avc_configuration(extradata: bytes) -> bytes:
    """ISO/IEC 14496-15, AVCDecoderConfigurationRecord with lengths of 4 bytes."""
    sps = [unit for unit in _units(extradata) if unit[0] & 0x1F == _SPS]
    pps = [unit for unit in _units(extradata) if unit[0] & 0x1F == _PPS]
    record = bytearray([1, *sps[0][1:4], 0xFF, 0xE0 | len(sps)])
    for unit in sps:
        record += len(unit).to_bytes(2, "big") + unit
    record.append(len(pps))
    for unit in pps:
        record += len(unit).to_bytes(2, "big") + unit
    return bytes(record)
