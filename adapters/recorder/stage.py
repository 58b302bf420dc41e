"""Who is shown and heard: from the members of the room to what the source of an egress asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adapters.recorder.members import (
    CAMERA,
    MICROPHONE,
    SCREEN_SHARE,
    UNKNOWN,
    Member,
    Publication,
)
from server.domain.egress_sources import (
    AudioRoute,
    MediaSource,
    ParticipantSource,
    RoomSource,
    TrackCompositeSource,
)
from server.domain.layout import StageTrack

Sizes = Mapping[str, tuple[int, int]]
"""The size of the newest picture of each track that has one."""


@dataclass(frozen=True, slots=True)
class Show:
    """`tracks` in display order; a track of the source `avatar` has no picture. `audio` maps sids to channels.

    `missing` says what is waited for and not there; `wrong` why that can't be recorded at all; `over` that nothing more
    will come; `idle` that there is nothing to record yet.
    """

    tracks: tuple[StageTrack, ...] = ()
    audio: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    wrong: str = ""
    over: bool = False
    idle: bool = False


class Stage(Protocol):
    """Remembers what it has seen, so it must be asked at every change."""

    def show(self, members: Sequence[Member], speaking: Collection[str], sizes: Sizes) -> Show: ...


class RoomStage:
    """Everybody: their cameras, or initials where the camera is off, and what they share."""

    def __init__(self, source: RoomSource) -> None:
        self._source = source
        self._mixing = source.audio_mixing if source.audio_only else "default"
        self._sides: dict[str, str] = {}

    def show(self, members: Sequence[Member], speaking: Collection[str], sizes: Sizes) -> Show:
        tracks: list[StageTrack] = []
        audio: dict[str, str] = {}
        for member in members:
            if not self._source.audio_only:
                tracks.extend(_of_member(member, speaking, sizes))
            if not self._source.video_only:
                audio.update({one.sid: self._channel(member, one) for one in member.published("audio")})
        return Show(tuple(tracks), audio)

    def _channel(self, member: Member, publication: Publication) -> str:
        if self._mixing == "dual_channel_agent":
            return "left" if member.kind == "agent" else "right"
        if self._mixing == "dual_channel_alternate":
            return self._sides.setdefault(publication.sid, ("left", "right")[len(self._sides) % 2])
        return "both"


class ParticipantStage:
    """One participant, for as long as they are there."""

    def __init__(self, source: ParticipantSource) -> None:
        self._source = source
        self._met = False

    def show(self, members: Sequence[Member], speaking: Collection[str], sizes: Sizes) -> Show:
        identity = self._source.identity
        member = next((one for one in members if one.identity == identity), None)
        if member is None:
            return Show(missing=f"participant {identity} not found", over=self._met, idle=True)
        self._met = True
        if self._source.screen_share:
            videos = [one for one in member.published("video") if one.source != CAMERA]
            sounds = [one for one in member.published("audio") if one.source != MICROPHONE]
        else:
            videos = list(member.published("video", CAMERA))
            sounds = list(member.published("audio", MICROPHONE))
        return Show(
            _alone(member, videos[-1:], sizes),
            {one.sid: "both" for one in sounds},
            idle=not videos and not sounds,
        )


class TrackCompositeStage:
    """At most one picture and one sound, by sid, until both have ended."""

    def __init__(self, source: TrackCompositeSource) -> None:
        self._wanted = {
            sid: media
            for sid, media in ((source.video_track_id, "video"), (source.audio_track_id, "audio"))
            if sid
        }
        self._met: set[str] = set()

    def show(self, members: Sequence[Member], speaking: Collection[str], sizes: Sizes) -> Show:
        tracks: tuple[StageTrack, ...] = ()
        audio: dict[str, str] = {}
        there: set[str] = set()
        for member in members:
            for one in member.publications:
                media = self._wanted.get(one.sid)
                if media is None:
                    continue
                if media != one.media:
                    return Show(
                        wrong=f"track {one.sid} is not {'a video' if media == 'video' else 'an audio'} track"
                    )
                there.add(one.sid)
                if media == "video":
                    tracks = _alone(member, [one], sizes)
                else:
                    audio[one.sid] = "both"
        self._met |= there
        absent = [sid for sid in self._wanted if sid not in self._met]
        return Show(
            tracks,
            audio,
            missing=f"track {absent[0]} not found" if absent else "",
            over=not absent and not there,
            idle=bool(absent),
        )


class MediaStage:
    """One picture and any sounds; it lasts as long as the room."""

    def __init__(self, source: MediaSource) -> None:
        self._source = source
        self._met: set[str] = set()

    def show(self, members: Sequence[Member], speaking: Collection[str], sizes: Sizes) -> Show:
        tracks: tuple[StageTrack, ...] = ()
        audio: dict[str, str] = {}
        for member in members:
            self._met.add(member.identity)
            self._met.update(one.sid for one in member.publications)
            if videos := self._videos(member):
                tracks = _alone(member, videos[-1:], sizes)
            for one in member.published("audio"):
                if channel := self._channel(member, one):
                    audio[one.sid] = channel
        missing = self._missing()
        return Show(tracks, audio, missing=missing, idle=bool(missing))

    def _videos(self, member: Member) -> list[Publication]:
        source = self._source
        if source.video_track_id:
            return [one for one in member.published("video") if one.sid == source.video_track_id]
        if not source.video_identity or member.identity != source.video_identity:
            return []
        return [one for one in member.published("video") if (one.source != CAMERA) == source.screen_share]

    def _channel(self, member: Member, one: Publication) -> str:
        if self._source.capture_all_audio:
            return "both"
        for route in self._source.routes:
            if _fits(route, member, one):
                return route.channel
        return ""

    def _missing(self) -> str:
        source = self._source
        sids = [source.video_track_id, *(route.track_id for route in source.routes)]
        people = [source.video_identity, *(route.participant_identity for route in source.routes)]
        for what, names in (("track", sids), ("participant", people)):
            for name in names:
                if name and name not in self._met:
                    return f"{what} {name} not found"
        return ""


def stage_of(source: object) -> Stage:
    """Raise TypeError for sources that are not composed."""
    match source:
        case RoomSource():
            return RoomStage(source)
        case ParticipantSource():
            return ParticipantStage(source)
        case TrackCompositeSource():
            return TrackCompositeStage(source)
        case MediaSource():
            return MediaStage(source)
        case _:
            raise TypeError(f"{type(source).__name__} is not composed")


def _fits(route: AudioRoute, member: Member, one: Publication) -> bool:
    if route.track_id:
        return route.track_id == one.sid
    if route.participant_identity:
        return route.participant_identity == member.identity
    return route.participant_kind == member.kind


def _of_member(member: Member, speaking: Collection[str], sizes: Sizes) -> list[StageTrack]:
    """Listeners who publish nothing, and agents without a picture, have no tile."""
    microphones = member.published("audio", MICROPHONE, UNKNOWN)
    muted = all(one.muted for one in microphones)
    name = member.name or member.identity
    found: list[StageTrack] = []
    for one in member.published("video", CAMERA, UNKNOWN):
        width, height = sizes.get(one.sid, (one.width, one.height))
        kind = "avatar" if one.muted else "camera"
        found.append(
            StageTrack(
                one.sid, member.identity, name, kind, width, height, muted, member.identity in speaking
            )
        )
    if not found and microphones and member.kind != "agent":
        found.append(
            StageTrack(
                f"avatar:{member.identity}",
                member.identity,
                name,
                "avatar",
                muted=muted,
                speaking=member.identity in speaking,
            )
        )
    for one in member.published("video", SCREEN_SHARE):
        if not one.muted:
            width, height = sizes.get(one.sid, (one.width, one.height))
            found.append(StageTrack(one.sid, member.identity, name, "screen_share", width, height))
    return found


def _alone(member: Member, videos: Sequence[Publication], sizes: Sizes) -> tuple[StageTrack, ...]:
    """A picture that has the frame for itself is shown whole, as a screen share is; nothing while it is muted."""
    return tuple(
        StageTrack(
            one.sid,
            member.identity,
            member.name,
            "screen_share",
            *sizes.get(one.sid, (one.width, one.height)),
        )
        for one in videos
        if not one.muted
    )
