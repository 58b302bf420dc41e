"""Checks finished HLS objects against RFC 8216, Apple's authoring rules and our key layout; no decoder needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from server.domain.mpegts import NotTransportStream, SegmentScan, scan_segment

Reader = Callable[[str], bytes]

RATE_TOLERANCE = 0.10
_MAX_OVER_TARGET_SEC = 0.5
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)(?:,|$)')
_SEGMENT_NAME = re.compile(r"segment_(\d{3,})\.ts")


@dataclass(frozen=True, slots=True)
class Finding:
    """One violated rule: the object's key and what is wrong with it."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


@dataclass(frozen=True, slots=True)
class StreamInf:
    uri: str
    attributes: Mapping[str, str]

    @property
    def folder(self) -> str:
        return self.uri.rsplit("/", 1)[0]

    def number(self, name: str) -> float:
        """0 where the attribute is absent or no number."""
        try:
            return float(self.attributes.get(name, "0"))
        except ValueError:
            return 0.0


@dataclass(frozen=True, slots=True)
class MasterPlaylist:
    tags: tuple[str, ...]
    variants: tuple[StreamInf, ...]
    media: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """`segments` are (URI, EXTINF seconds); `tags` maps each other tag to its value, "" if it has none."""

    tags: Mapping[str, str]
    segments: tuple[tuple[str, float], ...]

    @property
    def target_duration(self) -> int:
        return int(self.tags.get("#EXT-X-TARGETDURATION", "0"))

    @property
    def duration_sec(self) -> float:
        return sum(duration for _, duration in self.segments)


@dataclass(slots=True)
class Report:
    """Collects findings."""

    findings: list[Finding] = field(default_factory=list)

    def check(self, holds: bool, key: str, problem: str) -> bool:
        if not holds:
            self.findings.append(Finding(key, problem))
        return holds


def parse_master(text: str) -> MasterPlaylist:
    variants: list[StreamInf] = []
    media: list[Mapping[str, str]] = []
    tags: list[str] = []
    pending: Mapping[str, str] | None = None
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#EXT-X-STREAM-INF:"):
            pending = _attributes(line)
        elif line.startswith("#EXT-X-MEDIA:"):
            media.append(_attributes(line))
        elif line.startswith("#"):
            tags.append(line)
        elif pending is not None:
            variants.append(StreamInf(line, pending))
            pending = None
    return MasterPlaylist(tuple(tags), tuple(variants), tuple(media))


def parse_media(text: str) -> MediaPlaylist:
    tags: dict[str, str] = {}
    segments: list[tuple[str, float]] = []
    length = 0.0
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#EXTINF:"):
            length = float(line[8:].split(",")[0])
        elif line.startswith("#"):
            name, _, value = line.partition(":")
            tags[name] = value
        else:
            segments.append((line, length))
    return MediaPlaylist(tags, tuple(segments))


def quick_audit(read: Reader, *, renditions: Sequence[str], ended: bool = True) -> list[Finding]:
    """What can be told from the playlists and the first segment of each rendition.

    `read` takes a key relative to the job's prefix and raises KeyError or OSError if there is no such object. For a
    server that has just published them; cheap on any storage.
    """
    report = Report()
    playlists = read_playlists(read, report, renditions=renditions, ended=ended)
    for folder, playlist in playlists.items():
        for name, _ in playlist.segments[:1]:
            scan_object(read, report, f"{folder}/{name}")
    return report.findings


def read_playlists(
    read: Reader, report: Report, *, renditions: Sequence[str], ended: bool = True
) -> dict[str, MediaPlaylist]:
    """Rendition → its playlist, with everything checked that needs no segment."""
    master = _read_text(read, report, "master.m3u8")
    if master is None:
        return {}
    parsed = parse_master(master)
    key = "master.m3u8"
    report.check(master.startswith("#EXTM3U\n"), key, "does not start with #EXTM3U")
    report.check("#EXT-X-INDEPENDENT-SEGMENTS" in parsed.tags, key, "no EXT-X-INDEPENDENT-SEGMENTS")
    uris = sorted(variant.uri for variant in parsed.variants)
    expected = sorted(f"{name}/playlist.m3u8" for name in renditions)
    report.check(uris == expected, key, f"variants {uris}, asked for were {expected}")
    for variant in parsed.variants:
        _check_stream_inf(report, key, variant)
    playlists: dict[str, MediaPlaylist] = {}
    for variant in parsed.variants:
        text = _read_text(read, report, variant.uri)
        if text is not None:
            playlists[variant.folder] = parse_media(text)
            _check_media(report, variant.uri, text, playlists[variant.folder], ended=ended)
    targets = {playlist.target_duration for playlist in playlists.values()}
    report.check(len(targets) <= 1, key, f"different target durations {sorted(targets)} [8.2]")
    for attributes in parsed.media:
        uri = attributes.get("URI", "")
        text = _read_text(read, report, uri)
        if text is not None:
            _check_subtitles(read, report, uri, parse_media(text))
    return playlists


def scan_object(read: Reader, report: Report, key: str) -> SegmentScan | None:
    """One segment's own facts; checks sync bytes and that it starts with an IDR [7.4]."""
    try:
        scan = scan_segment(read(key))
    except (KeyError, OSError):
        report.findings.append(Finding(key, "is missing"))
        return None
    except NotTransportStream as error:
        report.findings.append(Finding(key, f"is no transport stream: {error}"))
        return None
    if scan.video_frames:
        report.check(scan.starts_with_idr, key, "does not start with an IDR picture [7.4]")
    return scan


def _check_stream_inf(report: Report, key: str, variant: StreamInf) -> None:
    has = variant.attributes
    peak, average = variant.number("BANDWIDTH"), variant.number("AVERAGE-BANDWIDTH")
    report.check(peak > 0, key, f"{variant.uri} has no BANDWIDTH")
    report.check(
        0 < average <= peak, key, f"{variant.uri} has AVERAGE-BANDWIDTH {average:.0f} over {peak:.0f}"
    )
    report.check(bool(has.get("CODECS")), key, f"{variant.uri} has no CODECS [9.1]")
    if "avc1" in has.get("CODECS", ""):
        for name in ("RESOLUTION", "FRAME-RATE"):
            report.check(name in has, key, f"{variant.uri} has no {name} [9.2, 9.15]")
        report.check(has.get("CLOSED-CAPTIONS") == "NONE", key, f"{variant.uri} lacks CLOSED-CAPTIONS=NONE")


def _check_media(report: Report, key: str, text: str, playlist: MediaPlaylist, *, ended: bool) -> None:
    target = playlist.target_duration
    report.check(text.startswith("#EXTM3U\n"), key, "does not start with #EXTM3U")
    report.check(target >= 1, key, f"target duration {target}")
    kind = "VOD" if ended else "EVENT"
    report.check(playlist.tags.get("#EXT-X-PLAYLIST-TYPE") == kind, key, f"is not of type {kind} [8.6]")
    report.check(("#EXT-X-ENDLIST" in playlist.tags) is ended, key, "ENDLIST is wrong")
    report.check(bool(playlist.segments), key, "names no segment")
    for number, (uri, length) in enumerate(playlist.segments):
        match = _SEGMENT_NAME.fullmatch(uri)
        report.check(match is not None and int(match[1]) == number, key, f"{uri} stands at place {number}")
        report.check(0 < length <= target + _MAX_OVER_TARGET_SEC, key, f"{uri} lasts {length} s [7.7]")
        report.check(int(length + 0.5) <= target, key, f"{uri} of {length} s exceeds the target duration")


def _check_subtitles(read: Reader, report: Report, uri: str, playlist: MediaPlaylist) -> None:
    report.check("#EXT-X-ENDLIST" in playlist.tags, uri, "has no ENDLIST")
    for name, _ in playlist.segments:
        key = f"{uri.rsplit('/', 1)[0]}/{name}"
        text = _read_text(read, report, key)
        if text is not None:
            good = text.startswith("WEBVTT\nX-TIMESTAMP-MAP=")
            report.check(good, key, "does not start with WEBVTT and X-TIMESTAMP-MAP [5.3]")


def _read_text(read: Reader, report: Report, key: str) -> str | None:
    try:
        return read(key).decode()
    except (KeyError, OSError):
        report.findings.append(Finding(key, "is missing"))
    except UnicodeDecodeError:
        report.findings.append(Finding(key, "is not UTF-8"))
    return None


def _attributes(line: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line.split(":", 1)[1])}
