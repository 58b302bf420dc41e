"""Names a file's container by its first bytes, so that FFmpeg never guesses among its hundreds of demuxers."""

from __future__ import annotations

from pathlib import Path

# FFmpeg demuxers that a source may be opened with. Text formats (hls, dash, concat, sdp) and picture sequences, which
# can name other files, are not among them (encoding-and-safety 2.2).
ALLOWED_FORMATS = (
    "mov",
    "matroska",
    "avi",
    "flv",
    "mpegts",
    "mpeg",
    "ogg",
    "wav",
    "mp3",
    "aac",
    "flac",
    "asf",
)
# What `-format_whitelist` must hold to let exactly these pass: FFmpeg compares whole demuxer names.
FORMAT_WHITELIST = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,ogg,wav,mp3,aac,flac,asf"

_HEAD_BYTES = 64 * 1024
_ASF_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MOV_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")


def sniff(path: Path) -> str | None:
    """The demuxer to open the file with, None if it is no container we accept."""
    with path.open("rb") as file:
        return sniff_bytes(file.read(_HEAD_BYTES))


def sniff_bytes(head: bytes) -> str | None:
    if len(head) < 12:
        return None
    if head[4:8] in _MOV_ATOMS:
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head[:4] in (b"RIFF", b"RF64"):
        return {b"AVI ": "avi", b"AVIX": "avi", b"WAVE": "wav"}.get(head[8:12])
    for magic, name in ((b"FLV\x01", "flv"), (b"OggS", "ogg"), (_ASF_GUID, "asf"), (b"fLaC", "flac")):
        if head.startswith(magic):
            return name
    if head.startswith((b"\0\0\1\xba", b"\0\0\1\xb3")):
        return "mpeg"
    if _is_transport_stream(head):
        return "mpegts"
    return _sniff_raw_audio(head)


def _is_transport_stream(head: bytes) -> bool:
    """188-byte packets, or 192 with a time code before each (MTS, M2TS); the first may be cut."""
    for size in (188, 192):
        for start in range(size):
            packets = range(start, min(len(head), start + 40 * size), size)
            if len(packets) > 3 and all(head[at] == 0x47 for at in packets):
                return True
    return False


def _sniff_raw_audio(head: bytes) -> str | None:
    if head.startswith(b"ID3"):
        size = int.from_bytes(bytes(head[6:10]), "big")
        # The tag's size has seven bits a byte.
        skip = 10 + ((size & 0x7F) | (size & 0x7F00) >> 1 | (size & 0x7F0000) >> 2 | (size & 0x7F000000) >> 3)
        after = head[skip : skip + 4]
        if after.startswith(b"fLaC"):
            return "flac"
        return "aac" if _is_adts(after) else "mp3"
    if _is_adts(head):
        return "aac"
    if head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6 and head[2] & 0xF0 != 0xF0:
        return "mp3"
    return None


def _is_adts(head: bytes) -> bool:
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
