"""What requests say about files, segments, images, streams and storage (livekit-surface.md 1.5, 3)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf import json_format

from server.domain.egress import Destination, FileOutput, ImagesOutput, Outputs, SegmentsOutput, StorageChoice
from server.egress import stream_urls
from server.egress.encodings import is_picture_size
from server.egress.validation import check_proxy, check_role, enum_name, has_field, is_endpoint, wrong
from server.ids import new_id

_FILE_TYPES = {"DEFAULT_FILETYPE": "", "MP4": "mp4", "OGG": "ogg", "MP3": "mp3"}
_PROTOCOLS = {"RTMP": stream_urls.RTMP, "SRT": stream_urls.SRT, "WEBSOCKET": stream_urls.WEBSOCKET}
_SEGMENT_SUFFIXES = {"INDEX": "index", "TIMESTAMP": "timestamp"}
_IMAGE_SUFFIXES = {
    "IMAGE_SUFFIX_INDEX": "index",
    "IMAGE_SUFFIX_TIMESTAMP": "timestamp",
    "IMAGE_SUFFIX_NONE_OVERWRITE": "none",
}
_STORAGES = ("s3", "gcp", "azure", "aliOSS")
DEFAULT_SEGMENT_SEC = 4
DEFAULT_CAPTURE_SEC = 10
_LONGEST_SEGMENT_SEC = 60
_LONGEST_PATH = 1024
MAX_DESTINATIONS = 50

UrlCheck = Callable[[str], None]
"""Raises ServiceError for an address that must not be contacted."""


@dataclass(slots=True)
class Read:
    """What has been read so far. `file_type` is None without a file, "" where any will do."""

    files: list[FileOutput] = field(default_factory=list)
    segments: list[SegmentsOutput] = field(default_factory=list)
    images: list[ImagesOutput] = field(default_factory=list)
    protocol: str = ""
    destinations: list[Destination] = field(default_factory=list)
    storages: list[StorageChoice] = field(default_factory=list)
    file_type: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What must share one encoding, besides the file."""
        return (
            *([self.protocol] if self.protocol else []),
            *["segments" for _ in self.segments],
            *["images" for _ in self.images],
        )

    @property
    def keeps(self) -> bool:
        """Whether anything is stored."""
        return bool(self.files or self.segments or self.images)

    def outputs(self, *, container: str, segment_sec: int) -> Outputs:
        return Outputs(
            files=tuple(replace(one, container=container) for one in self.files),
            segments=tuple(replace(one, segment_sec=segment_sec) for one in self.segments),
            images=tuple(self.images),
            streams=self.protocol,
        )

    def store(self, choice: StorageChoice) -> int:
        """The index of that storage."""
        if choice not in self.storages:
            self.storages.append(choice)
        return self.storages.index(choice)


def read_lists(request: Any, check_url: UrlCheck) -> Read:
    """The outputs of the older requests: a list with one entry wins over the field of its kind that it replaced."""
    read = Read()
    if has_field(request, "file_outputs"):
        for output in _single(request, "file_outputs", "file", "multiple file outputs"):
            add_file(read, output, own_storage(output))
    if has_field(request, "stream_outputs"):
        for output in _single(request, "stream_outputs", "stream", "multiple stream outputs"):
            add_stream(read, output, check_url, websocket=False)
    if has_field(request, "segment_outputs"):
        for output in _single(request, "segment_outputs", "segments", "multiple segmented file outputs"):
            add_segments(read, output, own_storage(output))
    if has_field(request, "image_outputs"):
        for output in _single(request, "image_outputs", "", "multiple image outputs"):
            add_images(read, output, own_storage(output))
    return _checked(read)


def read_outputs(request: Any, check_url: UrlCheck) -> Read:
    """The outputs of `StartEgressRequest`. A storage of its own before the request's; the one inside segments and
    images does not count, as with LiveKit.
    """
    read = Read()
    several = {"file": "multiple file outputs", "stream": "multiple stream outputs"}
    several["segments"] = "multiple segmented file outputs"
    seen: set[str] = set()
    for output in request.outputs:
        kind = output.WhichOneof("config")
        if kind is None:
            raise wrong("output config")
        if kind in seen and kind in several:
            raise wrong(several[kind])
        seen.add(kind)
        storage = storage_of(output.storage if output.HasField("storage") else request.storage)
        if kind == "stream":
            add_stream(read, output.stream, check_url, websocket=True)
        else:
            _ADDERS[kind](read, getattr(output, kind), storage)
    return _checked(read)


def _single(request: Any, name: str, replaced: str, several: str) -> Sequence[Any]:
    entries = getattr(request, name)
    if len(entries) > 1:
        raise wrong(several)
    if entries or not replaced or not has_field(request, replaced) or not request.HasField(replaced):
        return list(entries)
    return [getattr(request, replaced)]


def _checked(read: Read) -> Read:
    if not read.keeps and not read.protocol:
        raise wrong("output")
    if read.protocol and not read.destinations and not read.keeps:
        raise wrong("stream url")
    return read


# --- one of each kind


def add_file(read: Read, output: Any, storage: StorageChoice) -> None:
    name = enum_name(output, "file_type")
    if name not in _FILE_TYPES:
        raise wrong("file_type")
    read.file_type = _FILE_TYPES[name]
    _check_path(output.filepath, "filepath")
    read.files.append(
        FileOutput(
            container="",
            path=output.filepath,
            manifest=not output.disable_manifest,
            storage=read.store(storage),
        )
    )


def add_segments(read: Read, output: Any, storage: StorageChoice) -> None:
    suffix = _SEGMENT_SUFFIXES.get(enum_name(output, "filename_suffix"))
    if suffix is None:
        raise wrong("filename_suffix")
    if enum_name(output, "protocol") not in ("DEFAULT_SEGMENTED_FILE_PROTOCOL", "HLS_PROTOCOL"):
        raise wrong("segmented file protocol")
    if output.segment_duration > _LONGEST_SEGMENT_SEC:
        raise wrong("segment_duration")
    for name in ("filename_prefix", "playlist_name", "live_playlist_name"):
        _check_path(getattr(output, name), name)
    _check_live_playlist(output.playlist_name, output.live_playlist_name)
    read.segments.append(
        SegmentsOutput(
            prefix=output.filename_prefix,
            playlist=output.playlist_name,
            live_playlist=output.live_playlist_name,
            segment_sec=output.segment_duration or DEFAULT_SEGMENT_SEC,
            suffix=suffix,
            manifest=not output.disable_manifest,
            storage=read.store(storage),
        )
    )


def _check_live_playlist(playlist: str, live: str) -> None:
    if not live:
        return
    folder = posixpath.dirname(live)
    if folder and folder != posixpath.dirname(playlist):
        raise wrong("live_playlist_name must be in same directory as playlist_name")
    if _stem(live) == _stem(playlist):
        raise wrong("live_playlist_name cannot be identical to playlist_name")


def _stem(path: str) -> str:
    name = posixpath.basename(path)
    return name.rpartition(".")[0] or name


def add_images(read: Read, output: Any, storage: StorageChoice) -> None:
    suffix = _IMAGE_SUFFIXES.get(enum_name(output, "filename_suffix"))
    if suffix is None:
        raise wrong("filename_suffix")
    for name in ("width", "height"):
        if not is_picture_size(getattr(output, name)):
            raise wrong(name)
    if output.capture_interval > 24 * 3600:
        raise wrong("capture_interval")
    _check_path(output.filename_prefix, "filename_prefix")
    read.images.append(
        ImagesOutput(
            prefix=output.filename_prefix,
            interval_sec=output.capture_interval or DEFAULT_CAPTURE_SEC,
            width=output.width,
            height=output.height,
            suffix=suffix,
            manifest=not output.disable_manifest,
            storage=read.store(storage),
        )
    )


_ADDERS: Mapping[str, Callable[[Read, Any, StorageChoice], None]] = {
    "file": add_file,
    "segments": add_segments,
    "images": add_images,
}


def add_stream(read: Read, output: Any, check_url: UrlCheck, *, websocket: bool) -> None:
    """`urls` and `destinations` are one list; a websocket is only for those requests that know how to use it."""
    given = [(one.id, one.url) for one in output.destinations] + [("", url) for url in output.urls]
    name = enum_name(output, "protocol")
    if name == "DEFAULT_PROTOCOL" and not given:
        raise wrong("stream protocol")
    read.protocol = _PROTOCOLS.get(name, "") or stream_urls.family(given[0][1] if given else "")
    if read.protocol == stream_urls.WEBSOCKET and not websocket:
        raise wrong("stream protocol")
    if not read.protocol:
        if given and name == "DEFAULT_PROTOCOL":
            stream_urls.canonical(given[0][1], "")
        raise wrong("stream protocol")
    if read.protocol == stream_urls.WEBSOCKET:
        del given[1:]
    read.destinations = list(destinations(given, read.protocol, check_url))


def destinations(
    given: Iterable[tuple[str, str]], protocol: str, check_url: UrlCheck
) -> tuple[Destination, ...]:
    """Of (id, URL) pairs; an address that is named twice is one destination, an id used twice is refused."""
    found: dict[str, Destination] = {}
    ids: set[str] = set()
    for name, url in given:
        address = stream_urls.canonical(url, protocol)
        check_url(address)
        if address in found:
            continue
        if len(name) > 128 or (name and name in ids):
            raise wrong("destinations")
        ids.add(name)
        found[address] = Destination(name or new_id("dst"), address)
    if len(found) > MAX_DESTINATIONS:
        raise wrong(f"stream url (at most {MAX_DESTINATIONS})")
    return tuple(found.values())


# --- storage


def own_storage(output: Any) -> StorageChoice:
    """The storage inside an output; the older requests have it there."""
    return _choice(output, "output")


def storage_of(config: Any) -> StorageChoice:
    """Of a `StorageConfig`; the project's own when nothing is in it."""
    return _choice(config, "provider")


def _choice(message: Any, oneof: str) -> StorageChoice:
    kind = message.WhichOneof(oneof)
    if kind not in _STORAGES:
        return StorageChoice()
    upload = getattr(message, kind)
    # Credentials may be left to the server; a place may not.
    place = "container_name" if kind == "azure" else "bucket"
    if not getattr(upload, place):
        raise wrong(place)
    if has_field(upload, "proxy") and upload.HasField("proxy"):
        check_proxy(upload.proxy, encrypted=kind == "s3")
    if has_field(upload, "endpoint") and upload.endpoint and not is_endpoint(upload.endpoint):
        raise wrong("endpoint")
    if kind == "s3":
        check_role(upload)
    return StorageChoice(
        backend=kind.lower(), config=json_format.MessageToDict(upload, preserving_proto_field_name=True)
    )


def _check_path(path: str, field: str) -> None:
    if len(path.encode()) > _LONGEST_PATH or any(ord(char) < 32 for char in path):
        raise wrong(field)
