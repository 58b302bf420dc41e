"""Decides what the next frames are made of: who is shown where and heard, and what of the room is needed for that."""

from __future__ import annotations

import time
from dataclasses import replace

from adapters.recorder.lipsync import Delays, LipSync
from adapters.recorder.mixer import Voice
from adapters.recorder.room import RecordedRoom
from adapters.recorder.stage import Show, stage_of
from adapters.recorder.timeline import Scene
from server.domain.egress import VideoEncoding
from server.domain.egress_sources import RoomSource
from server.domain.layout import StageOrder, StageTrack, arrange
from server.domain.speaker import SpeakerChoice
from server.ports.recorder import NewOrders, RecorderPlan

_LOST_CARD = "Connection lost, trying again"
_PAUSE_CARD = "Paused"


class Director:
    """Looks at the room whenever it changes. `freeze_sec`: so long a lost connection shows the last pictures."""

    def __init__(self, plan: RecorderPlan, room: RecordedRoom, freeze_sec: float) -> None:
        self._plan = plan
        self._room = room
        self._freeze_sec = freeze_sec
        self._stage = stage_of(plan.source)
        self._order = StageOrder()
        self._voices = SpeakerChoice()
        self._speaking: frozenset[str] = frozenset()
        self._lips = LipSync()
        self.show = Show()
        self.orders = NewOrders(plan.layout, plan.paused, plan.destinations)

    @property
    def offset_ms(self) -> float:
        """Sound minus picture of the participant where it is largest."""
        return self._lips.offset_ms

    @property
    def muted(self) -> bool:
        """Nobody who belongs to the recording has a microphone on."""
        wanted = self.show.audio
        return not any(
            one.sid in wanted and not one.muted
            for member in self._room.members
            for one in member.published("audio")
        )

    def look(self) -> None:
        """Takes the room in as it is now, and asks for what is needed of it."""
        sizes = {
            sid: feed.pictures.size
            for sid, feed in self._room.feeds.items()
            if feed.pictures is not None and feed.pictures.arrived
        }
        show = self._stage.show(self._room.members, self._speaking, sizes)
        self.show = replace(show, tracks=self._in_order(show.tracks))
        sounds = set(self.show.audio) if self._plan.encoding.audio is not None else set()
        self._room.want(self.tiles(), sounds)

    def listen(self) -> bool:
        """Who speaks, from how loud everybody is: somebody without a tile has no stage to take. Whether that changed."""
        levels: dict[str, float] = {}
        for member in self._room.members:
            for one in member.published("audio"):
                feed = self._room.feeds.get(one.sid)
                if feed is not None and feed.sound is not None:
                    levels[member.identity] = max(levels.get(member.identity, 0.0), feed.sound.level())
        shown = {track.identity for track in self.show.tracks}
        before = (self._voices.speaker, self._speaking)
        if self._voices.speaker is not None and self._voices.speaker not in shown:
            self._voices.forget(self._voices.speaker)
        now = time.monotonic()
        self._voices.update(now, {who: level for who, level in levels.items() if who in shown})
        self._speaking = self._voices.speaking(now)
        return (self._voices.speaker, self._speaking) != before

    def synchronise(self, delays: Delays) -> None:
        self._lips.measure(delays, self._pairs())

    def tiles(self) -> dict[str, tuple[int, int]]:
        """The sizes that pictures are shown in, by sid."""
        video = self._plan.encoding.video
        if video is None:
            return {}
        with_picture = {one.id for one in self.show.tracks if one.source != "avatar"}
        return {
            tile.track_id: (tile.rect.width, tile.rect.height)
            for tile in arrange(
                self._layout(), self.show.tracks, self._voices.speaker, video.width, video.height
            )
            if tile.track_id in with_picture
        }

    def scene(self) -> Scene:
        feeds = self._room.feeds
        shown = {one.id for one in self.show.tracks}
        return Scene(
            self._layout(),
            self.show.tracks,
            self._voices.speaker,
            {sid: feed.pictures for sid, feed in feeds.items() if feed.pictures is not None and sid in shown},
            dict(self._lips.holds),
            {
                sid: Voice(sound, channel)
                for sid, channel in self.show.audio.items()
                if sid in feeds and (sound := feeds[sid].sound) is not None
            },
            self._card(),
            silent=bool(self.orders.paused),
        )

    def _card(self) -> str:
        if self.orders.paused == "card":
            return _PAUSE_CARD
        lost = self._room.lost_since
        return _LOST_CARD if lost is not None and time.monotonic() - lost > self._freeze_sec else ""

    def _layout(self) -> str:
        if not isinstance(self._plan.source, RoomSource):
            return "single-speaker"
        return self.orders.layout or self._plan.layout

    def _in_order(self, tracks: tuple[StageTrack, ...]) -> tuple[StageTrack, ...]:
        """As they are shown: subscriptions and composition must agree on who is on the first page."""
        video: VideoEncoding | None = self._plan.encoding.video
        if video is None:
            return tracks
        return self._order.update(self._layout(), tracks, self._voices.speaker, video.width, video.height)

    def _pairs(self) -> dict[str, str]:
        """Which sound belongs to which picture."""
        pairs: dict[str, str] = {}
        for member in self._room.members:
            for video, audio in (("camera", "microphone"), ("screen_share", "screen_share_audio")):
                pictures, sounds = member.published("video", video), member.published("audio", audio)
                if pictures and sounds:
                    pairs[pictures[-1].sid] = sounds[-1].sid
        return {video: audio for video, audio in pairs.items() if {video, audio} <= self._room.feeds.keys()}
