"""Names of objects: LiveKit's templates, filled with what is known of an egress (livekit-surface.md 3)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from server.domain.egress import Egress, FileOutput, ImagesOutput, SegmentsOutput
from server.domain.egress_sources import TrackSource, WebSource

_KNOWN_EXTENSIONS = (".raw", ".ogg", ".mp3", ".ivf", ".mp4", ".ts", ".webm", ".m3u8", ".jpeg")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What placeholders stand for. One that is empty leaves its placeholder as it is, like LiveKit.

    `identifier` begins default names: the room's name, `web` or the track's id. `at` is when the egress was accepted.
    """

    at: datetime
    room_name: str = ""
    room_id: str = ""
    publisher_identity: str = ""
    track_id: str = ""
    track_type: str = ""
    track_source: str = ""

    @property
    def identifier(self) -> str:
        return self.track_id or self.room_name or "web"

    def values(self) -> Mapping[str, str]:
        return {
            "room_name": self.room_name,
            "room_id": self.room_id,
            "time": self.time,
            "utc": _stamp(self.at),
            "publisher_identity": self.publisher_identity,
            "track_id": self.track_id,
            "track_type": self.track_type,
            "track_source": self.track_source,
        }

    @property
    def time(self) -> str:
        return self.at.astimezone(UTC).strftime("%Y-%m-%dT%H%M%S")


def facts_of(
    egress: Egress,
    *,
    publisher_identity: str = "",
    track_kind: str = "",
    track_source: str = "",
) -> Facts:
    """`publisher_identity`, `track_kind` and `track_source` are what the recorder found on joining (`Joined`)."""
    source = egress.plan.source
    track_id = source.track_id if isinstance(source, TrackSource) else ""
    in_room = not isinstance(source, WebSource)
    return Facts(
        at=datetime.fromtimestamp(egress.started_at / 1e9, UTC),
        room_name=egress.room_name if in_room else "",
        room_id=egress.room_id if in_room else "",
        publisher_identity=publisher_identity,
        track_id=track_id,
        track_type=track_kind if track_id else "",
        track_source=track_source if track_id else "",
    )


def fill(template: str, facts: Facts) -> str:
    """Known placeholders replaced, all else as it is. Values are not looked through for placeholders again."""
    values = facts.values()
    return _PLACEHOLDER.sub(lambda found: values.get(found[1]) or found[0], template)


def clean(path: str) -> str:
    """A key: normalised, never outside its storage; a slash at the end stays, for it names a folder.

    LiveKit keeps absolute paths as paths of its machine; ours are always keys, so the slash in front goes.
    """
    folder = path.endswith("/")
    normal = posixpath.normpath("/" + path).lstrip("/")
    return normal + "/" if folder and normal else normal


def file_key(output: FileOutput, facts: Facts, container: str) -> str:
    """The key of the file; `container` (`mp4`, `webm`, `ogg`, `mp3`, `ivf`) gives its extension."""
    extension = "." + container
    path = clean(fill(output.path, facts))
    if not path or path.endswith("/"):
        return f"{path}{clean(facts.identifier).rstrip('/') or 'egress'}-{facts.time}{extension}"
    if path.endswith(extension):
        return path
    known = next((one for one in _KNOWN_EXTENSIONS if path.endswith(one)), "")
    return path.removesuffix(known) + extension


@dataclass(frozen=True, slots=True)
class SegmentNames:
    """`playlist` and `live_playlist` ("" for none) are keys, `prefix` is what keys of segments begin with.

    Segments lie in the folder of the playlists or below it.
    """

    playlist: str
    live_playlist: str
    prefix: str
    suffix: str

    def segment(self, number: int, started_at: int) -> str:
        """The key of segment `number`, from 0; `started_at` in ns since 1970."""
        return f"{self.prefix}_{_part(self.suffix, number, started_at)}.ts"

    def in_playlist(self, key: str) -> str:
        """A segment's key as the playlists name it."""
        return posixpath.relpath(key, posixpath.dirname(self.playlist) or ".")


def segment_names(output: SegmentsOutput, facts: Facts) -> SegmentNames:
    """Names of one HLS output: each may fill in for the other, and may bring the folder for all."""
    playlist = _without_extension(clean(fill(output.playlist, facts)))
    prefix = clean(fill(output.prefix, facts))
    live = _without_extension(clean(fill(output.live_playlist, facts)))
    playlist_folder, playlist_name = posixpath.split(playlist)
    prefix_folder, prefix_name = posixpath.split(prefix)
    live_name = posixpath.basename(live)
    # The seed's sample gives the playlist's name as the prefix.
    playlist_name = (
        playlist_name or prefix_name.removesuffix(".m3u8") or f"{_flat(facts.identifier)}-{facts.time}"
    )
    prefix_name = prefix_name or playlist_name
    folder = playlist_folder or posixpath.dirname(live) or prefix_folder
    below = prefix_folder if prefix_folder not in ("", folder) else ""
    return SegmentNames(
        playlist=posixpath.join(folder, playlist_name + ".m3u8"),
        live_playlist=posixpath.join(folder, live_name + ".m3u8") if live_name else "",
        prefix=posixpath.join(folder, below, prefix_name),
        suffix=output.suffix,
    )


@dataclass(frozen=True, slots=True)
class ImageNames:
    """`prefix` is what keys of images begin with."""

    prefix: str
    suffix: str

    def image(self, number: int, taken_at: int) -> str:
        """The key of image `number`, from 0; `taken_at` in ns since 1970. With suffix `none` always the same one."""
        if self.suffix == "none":
            return self.prefix + ".jpeg"
        return f"{self.prefix}_{_part(self.suffix, number, taken_at)}.jpeg"


def image_names(output: ImagesOutput, facts: Facts) -> ImageNames:
    prefix = clean(fill(output.prefix, facts))
    if not prefix or prefix.endswith("/"):
        prefix = f"{prefix}{_flat(facts.identifier)}-{facts.time}"
    return ImageNames(prefix, output.suffix)


def _part(suffix: str, number: int, at: int) -> str:
    return _stamp(datetime.fromtimestamp(at / 1e9, UTC)) if suffix == "timestamp" else f"{number:05d}"


def _stamp(at: datetime) -> str:
    moment = at.astimezone(UTC)
    return f"{moment:%Y%m%d%H%M%S}{moment.microsecond // 1000:03d}"


def _flat(name: str) -> str:
    return posixpath.basename(clean(name)) or "egress"


def _without_extension(path: str) -> str:
    """Whatever follows the last dot of a playlist's name goes, as LiveKit does it."""
    folder, name = posixpath.split(path)
    stem = name.rpartition(".")[0] or name
    return posixpath.join(folder, stem)
