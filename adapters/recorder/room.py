"""The room as the recorder sees it: joined by the LiveKit SDK, joined again when the connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc._proto.ffi_pb2 import FfiRequest

from adapters.recorder.members import Member, Publication, in_order
from adapters.recorder.mixer import Sound
from adapters.recorder.pictures import Pictures
from adapters.recorder.scrub import scrubbed
from adapters.recorder.tap import RawPicture, Stream, Tap

_log = logging.getLogger(__name__)
_EVENTS: tuple[Any, ...] = (
    "participant_connected",
    "participant_disconnected",
    "track_published",
    "track_unpublished",
    "track_muted",
    "track_unmuted",
    "participant_name_changed",
    "participant_permissions_changed",
)
_REASONS = {
    rtc.DisconnectReason.DUPLICATE_IDENTITY: "evicted",
    rtc.DisconnectReason.PARTICIPANT_REMOVED: "source_closed",
    rtc.DisconnectReason.ROOM_DELETED: "source_closed",
    rtc.DisconnectReason.ROOM_CLOSED: "source_closed",
}
_CONNECT_SEC = 5.0
# The SDK tries four times, which takes this long at the most. Whoever gives up before leaves an attempt behind that may
# still get through, and would throw the next one out under the same identity.
_JOIN_SEC = 40.0
_SUBSCRIBE_AGAIN_SEC = 1.0
_PAUSES_SEC = (0.2, 0.5, 1.0, 2.0)
_FAREWELL_SEC = 0.5
_STATISTICS_SEC = 1.0


class StatisticsFailed(Exception):
    """The SDK did not tell them this time."""


class CannotJoin(Exception):
    """The message is fit to be shown."""


@dataclass(slots=True)
class Feed:
    """A subscribed track; one of `pictures` and `sound` is there. `stats_id` is its name in WebRTC's statistics."""

    publication: rtc.RemoteTrackPublication
    stream: Stream
    pictures: Pictures | None = None
    sound: Sound | None = None
    stats_id: str = ""


@dataclass(slots=True)
class _Asked:
    """What was last asked of LiveKit for one publication object; after a reconnection that is another object."""

    publication: rtc.RemoteTrackPublication
    subscribed: bool
    shown: bool = False
    enabled: bool = True
    size: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class RecordedRoom:
    """`changed` is called in the event loop after anything that matters did; `position` tells the mixer's clock.

    `ended` becomes `source_closed`, `evicted` or `connection_lost`. While `lost_since` (monotonic seconds) is set, the
    members and feeds are those of before. With `at_once` LiveKit subscribes to everything by itself until the connection is given up.
    """

    url: str
    token: str = field(repr=False)
    changed: Callable[[], None]
    position: Callable[[], int]
    give_up_sec: float = 30.0
    at_once: bool = False
    ended: str = ""
    lost_since: float | None = None
    members: tuple[Member, ...] = ()
    feeds: dict[str, Feed] = field(default_factory=dict)
    _room: rtc.Room | None = None
    _tap: Tap | None = None
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _rejoining: asyncio.Task[None] | None = None
    _pending: bool = False

    async def join(self) -> str:
        """Returns the room's sid. Raise CannotJoin."""
        loop = asyncio.get_running_loop()
        if self._tap is None:
            self._tap = Tap(loop)
        room = rtc.Room(loop)
        self._listen(room)
        # With one connection for both ways LiveKit takes a fifth of a second longer to send the first picture.
        options = rtc.RoomOptions(
            auto_subscribe=self.at_once, single_peer_connection=False, connect_timeout=_CONNECT_SEC
        )
        self._room = room
        try:
            async with asyncio.timeout(_JOIN_SEC):
                await room.connect(self.url, self.token, options)
        except rtc.ConnectError as error:
            raise CannotJoin(f"could not join the room: {scrubbed(error.message)}") from None
        except TimeoutError:
            raise CannotJoin("could not join the room: LiveKit did not answer in time") from None
        self.lost_since = None
        self._refresh()
        return await room.sid

    async def close(self) -> None:
        if self._rejoining is not None:
            self._rejoining.cancel()
        for feed in self.feeds.values():
            feed.stream.close()
        self.feeds.clear()
        room, self._room = self._room, None
        if room is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_SEC):
                    await room.disconnect()
        if self._tap is not None:
            self._tap.close()

    def want(self, videos: Mapping[str, tuple[int, int]], sounds: set[str]) -> None:
        """Subscribe to exactly these: pictures by sid with the size that they are shown in, and sounds.

        A picture that is not wanted any more stays subscribed but is not sent: it is back with its next key frame.
        """
        for publication in self._publications():
            sid = publication.sid
            asked = self._asked.get(sid)
            if asked is None or asked.publication is not publication:
                asked = self._asked[sid] = _Asked(publication, subscribed=self.at_once)
            if publication.kind == rtc.TrackKind.KIND_AUDIO:
                self._subscribe(asked, sid in sounds)
                continue
            size = videos.get(sid)
            asked.shown = asked.shown or size is not None
            self._subscribe(asked, asked.shown)
            # Until the track is there the SDK takes it for switched off, and asks LiveKit to send nothing.
            if (feed := self.feeds.get(sid)) is not None and feed.publication is publication:
                self._enable(asked, feed, size)

    async def delays(self) -> dict[str, tuple[float, int]]:
        """By sid: the summed seconds that samples or pictures waited in the SDK's jitter buffer, and how many did.

        Raise StatisticsFailed.
        """
        try:
            async with asyncio.timeout(_STATISTICS_SEC):
                return await self._delays()
        except Exception as error:  # noqa: BLE001 - of a track that ends meanwhile the SDK tells by the plainest one
            raise StatisticsFailed(type(error).__name__) from None

    async def _delays(self) -> dict[str, tuple[float, int]]:
        room = self._room
        if room is None or not room.isconnected():
            return {}
        for feed in list(self.feeds.values()):
            if not feed.stats_id and feed.publication.track is not None:
                feed.stats_id = next(
                    (one.track_identifier for one in _inbound(await feed.publication.track.get_stats())), ""
                )
        stats = await room.get_rtc_stats()
        sids = {feed.stats_id: sid for sid, feed in self.feeds.items() if feed.stats_id}
        return {
            sids[one.track_identifier]: (one.jitter_buffer_delay, one.jitter_buffer_emitted_count)
            for one in _inbound(stats.subscriber_stats)
            if one.track_identifier in sids
        }

    def _publications(self) -> Iterator[rtc.RemoteTrackPublication]:
        if self._room is None or self.lost_since is not None:
            return
        for participant in self._room.remote_participants.values():
            yield from participant.track_publications.values()

    def _subscribe(self, asked: _Asked, wanted: bool) -> None:
        if asked.subscribed != wanted:
            asked.subscribed = wanted
            asked.publication.set_subscribed(wanted)
            if not wanted and (feed := self.feeds.pop(asked.publication.sid, None)):
                feed.stream.close()

    def _enable(self, asked: _Asked, feed: Feed, size: tuple[int, int] | None) -> None:
        request = FfiRequest()
        handle = asked.publication._ffi_handle.handle
        if asked.enabled != (size is not None):
            asked.enabled = size is not None
            if feed.pictures is not None:
                feed.pictures.switch(on=asked.enabled)
            request.enable_remote_track_publication.track_publication_handle = handle
            request.enable_remote_track_publication.enabled = asked.enabled
            FfiClient.instance.request(request)
            request = FfiRequest()
        if size is not None and size != asked.size and asked.publication.simulcasted:
            asked.size = size
            wanted = request.update_remote_track_publication_dimension
            wanted.track_publication_handle = handle
            wanted.width, wanted.height = size
            FfiClient.instance.request(request)

    def _listen(self, room: rtc.Room) -> None:
        def current(handler: Callable[..., None]) -> Callable[..., None]:
            """Events of a connection that was given up mean nothing."""
            return lambda *args: handler(*args) if room is self._room else None

        for event in _EVENTS:
            room.on(event, current(lambda *_: self._soon()))
        room.on("track_muted", current(self._on_muted))
        room.on("track_subscribed", current(self._on_subscribed))
        room.on("track_subscription_failed", current(self._on_not_subscribed))
        room.on("track_unsubscribed", current(self._on_unsubscribed))
        room.on("reconnecting", current(self._on_reconnecting))
        room.on("reconnected", current(self._on_reconnected))
        room.on("disconnected", current(self._on_disconnected))

    def _soon(self) -> None:
        """Many events come together; they are looked at once."""
        if not self._pending:
            self._pending = True
            asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._pending = False
        if self._room is not None and self.lost_since is None:
            self.members = in_order([_member(one) for one in self._room.remote_participants.values()])
            known = {one.sid for one in self._publications()}
            for sid in [sid for sid in self.feeds if sid not in known]:
                self.feeds.pop(sid).stream.close()
            for sid in [sid for sid in self._asked if sid not in known]:
                del self._asked[sid]
        self.changed()

    def _on_subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, _: rtc.RemoteParticipant
    ) -> None:
        assert self._tap is not None
        asked = self._asked.get(publication.sid)
        if asked is not None and asked.publication is publication and not asked.subscribed:
            # It was on its way when it turned out not to be wanted; or LiveKit, which subscribes to everything in its own
            # time, did so after it was told not to. Unless it is told again, it would not tell of the track when it is.
            publication.set_subscribed(False)
            return
        old = self.feeds.pop(publication.sid, None)
        if old is not None:
            old.stream.close()
        if track.kind == rtc.TrackKind.KIND_VIDEO:
            pictures = Pictures()
            feed = Feed(publication, self._tap.video(track, self._picture_sink(pictures)), pictures=pictures)
        else:
            sound = Sound()
            position = self.position
            stream = self._tap.audio(track, lambda samples: sound.put(samples, position()))
            feed = Feed(publication, stream, sound=sound)
        self.feeds[publication.sid] = feed
        self._soon()

    def _picture_sink(self, pictures: Pictures) -> Callable[[RawPicture], None]:
        loop = asyncio.get_running_loop()

        def sink(raw: RawPicture) -> None:
            before = pictures.size
            pictures.put(raw, time.monotonic())
            if pictures.size != before:
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._soon)

        return sink

    def _on_unsubscribed(
        self, _: rtc.Track, publication: rtc.RemoteTrackPublication, __: rtc.RemoteParticipant
    ) -> None:
        if self.lost_since is None and (feed := self.feeds.pop(publication.sid, None)):
            feed.stream.close()
            self._soon()

    def _on_not_subscribed(self, _: rtc.RemoteParticipant, sid: str, error: str) -> None:
        _log.warning("track %s could not be subscribed to: %s", sid, error)
        if (asked := self._asked.get(sid)) is not None:
            self._subscribe(asked, wanted=False)
            asked.shown = False
            asyncio.get_running_loop().call_later(_SUBSCRIBE_AGAIN_SEC, self._soon)

    def _on_muted(self, _: rtc.Participant, publication: rtc.TrackPublication) -> None:
        feed = self.feeds.get(publication.sid)
        if feed is not None and feed.pictures is not None:
            feed.pictures.forget()

    def _on_reconnecting(self) -> None:
        if self.lost_since is None:
            self.lost_since = time.monotonic()
        self.changed()

    def _on_reconnected(self) -> None:
        self.lost_since = None
        self._soon()

    def _on_disconnected(self, reason: Any) -> None:
        self.ended = _REASONS.get(reason, "")
        if not self.ended:
            if self.lost_since is None:
                self.lost_since = time.monotonic()
            _log.warning("the connection is lost: %s", rtc.DisconnectReason.Name(reason))
            self._room = None
            # By now there may be many more.
            self.at_once = False
            self._rejoining = asyncio.create_task(self._rejoin())
        self.changed()

    async def _rejoin(self) -> None:
        assert self.lost_since is not None
        until = self.lost_since + self.give_up_sec
        attempt = 0
        while time.monotonic() < until:
            try:
                await self.join()
            except CannotJoin as error:
                _log.warning("%s", error)
                self._room = None
            else:
                return
            await asyncio.sleep(_PAUSES_SEC[min(attempt, len(_PAUSES_SEC) - 1)])
            attempt += 1
        self.ended = "connection_lost"
        self.changed()


def _inbound(stats: Iterable[Any]) -> Iterator[Any]:
    return (one.inbound_rtp.inbound for one in stats if one.WhichOneof("stats") == "inbound_rtp")


def _member(participant: rtc.RemoteParticipant) -> Member:
    return Member(
        identity=participant.identity,
        name=participant.name,
        kind=_name(rtc.ParticipantKind, participant.kind, "PARTICIPANT_KIND_"),
        joined_at=participant._info.joined_at,
        hidden=participant._info.permission.hidden,
        publications=tuple(_publication(one) for one in participant.track_publications.values()),
    )


def _publication(one: rtc.RemoteTrackPublication) -> Publication:
    return Publication(
        sid=one.sid,
        media="video" if one.kind == rtc.TrackKind.KIND_VIDEO else "audio",
        source=_SOURCES.get(one.source, "unknown"),
        codec=one.mime_type.partition("/")[2].lower(),
        width=one.width,
        height=one.height,
        muted=one.muted,
    )


def _name(kinds: Any, number: int, prefix: str) -> str:
    try:
        return str(kinds.Name(number)).removeprefix(prefix).lower()
    except ValueError:
        return "unknown"


_SOURCES = {
    rtc.TrackSource.SOURCE_CAMERA: "camera",
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_SCREENSHARE: "screen_share",
    rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO: "screen_share_audio",
}
