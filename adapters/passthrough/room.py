"""A room seen by a hidden subscriber: who is there, what they publish, and the frames of what is wanted of it.

The connection is renewed when it breaks, by joining again in full: the transport knows no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from adapters.passthrough.listener import Listener, Participant, Track, track_of
from adapters.passthrough.receiver import ConnectionLost, MediaLink
from adapters.passthrough.rtp import (
    nack,
    parse_packet,
    picture_loss,
    receiver_report,
    sender_reports,
    unwrap_rtx,
)
from adapters.passthrough.signal import JoinRefused, Signal, SignalLost
from adapters.passthrough.stream import Stream

if TYPE_CHECKING:
    from livekit.protocol.models import ParticipantInfo, TrackInfo
    from livekit.protocol.rtc import JoinResponse, LeaveRequest, SignalResponse

# How long a broken connection may stay broken.
REJOIN_SEC = 30.0
_REPORT_EVERY_SEC = 1.0
_SERVICE_EVERY_SEC = 0.02


class RoomLeft(Exception):
    """The room can't be followed any more. `reason`: `source_closed`, `connection_lost` or `evicted`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Room:
    """`run` follows a room until it ends. `want` and `drop` change what is received."""

    def __init__(self, url: str, token: str, listener: Listener) -> None:
        self._url = url
        self._token = token
        self._listener = listener
        self._people: dict[str, Participant] = {}
        self._tracks: dict[str, Track] = {}
        self._wanted: set[str] = set()
        self._levels: dict[str, float] = {}
        self._ours = random.getrandbits(32)
        self._signal: Signal | None = None
        self._link: MediaLink | None = None
        self._streams: dict[int, Stream] = {}
        self._repairs: dict[int, tuple[int, Mapping[int, int]]] = {}
        self._trailer = b""
        self._stood = False
        self._servicing: asyncio.TimerHandle | None = None

    @property
    def streams(self) -> Mapping[int, Stream]:
        """By SSRC, of the present connection."""
        return self._streams

    async def run(self) -> None:
        """Ends by RoomLeft; raise JoinRefused when not even the first join works, and what the listener raises."""
        deadline: float | None = None
        pause = 0.05
        while True:
            try:
                async with self._connected() as signal:
                    await self._follow(signal)
            except (SignalLost, ConnectionLost):
                if self._stood:
                    deadline, pause = None, 0.05
            except JoinRefused as refusal:
                if deadline is None or refusal.status in (401, 403):
                    raise
            now = time.monotonic()
            if deadline is None:
                deadline = now + REJOIN_SEC
                self._listener.interrupted(time.time_ns())
            if now > deadline:
                raise RoomLeft("connection_lost")
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    def want_key(self, track_id: str) -> None:
        """Asks for a key frame; frames come again with it."""
        for stream in self._streams.values():
            if stream.track_id == track_id:
                stream.want_key()
                self._schedule()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Signal]:
        async with Signal.join(self._url, self._token) as (signal, greeting):
            link = MediaLink(self._media, self._control)
            self._signal, self._link = signal, link
            try:
                await self._greeted(greeting)
                yield signal
            finally:
                self._stood = link.stood
                self._end_streams()
                self._signal = self._link = None
                await link.close()

    async def _greeted(self, greeting: JoinResponse) -> None:
        self._trailer = bytes(greeting.sif_trailer)
        now = time.time_ns()
        present = {one.sid for one in greeting.other_participants}
        for sid in [sid for sid in self._people if sid not in present]:
            self._gone(sid, now)
        # The new connection has subscribed to nothing yet.
        self._wanted.clear()
        for one in sorted(greeting.other_participants, key=lambda one: one.joined_at_ms):
            await self._update(one)
        self._listener.joined(greeting.room.sid, now)

    async def _follow(self, signal: Signal) -> None:
        """Until the connection breaks or the room ends."""
        assert self._link is not None
        reading = asyncio.create_task(self._read(signal))
        reporting = asyncio.create_task(self._report())
        losing = asyncio.create_task(self._link.lost.wait())
        tasks = {reading, reporting, losing}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._link.failure is not None:
                raise self._link.failure
            raise ConnectionLost("media no longer gets through")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, signal: Signal) -> None:
        async for message in signal.messages():
            await self._handle(signal, message)

    async def _handle(self, signal: Signal, message: SignalResponse) -> None:
        from livekit.protocol.rtc import SessionDescription, SignalRequest

        assert self._link is not None
        match message.WhichOneof("message"):
            case "offer":
                text = await self._link.accept(message.offer.sdp)
                self._take_offer()
                answer = SessionDescription(type="answer", sdp=text, id=message.offer.id)
                await signal.send(SignalRequest(answer=answer))
            case "trickle":
                line = json.loads(message.trickle.candidateInit).get("candidate", "")
                await self._link.add_candidate(line)
            case "update":
                for one in message.update.participants:
                    await self._update(one)
            case "speakers_changed":
                self._speakers(message)
            case "refresh_token":
                self._token = message.refresh_token
            case "leave":
                _leave(message.leave)
            case _:
                pass

    def _take_offer(self) -> None:
        """Streams of the sections as they are now; those that are gone end."""
        assert self._link is not None
        assert self._link.offer is not None
        now = time.monotonic()
        known, self._streams, self._repairs = self._streams, {}, {}
        for media in self._link.offer.media:
            if not media.active:
                continue
            for ssrc in media.ssrcs[:1]:
                stream = known.pop(ssrc, None)
                self._streams[ssrc] = stream or Stream(media, ssrc, self._trailer, self._listener.frame, now)
            for repair, of in media.repairs.items():
                self._repairs[repair] = (of, media.rtx_types)
        for stream in known.values():
            stream.finish()

    def _end_streams(self) -> None:
        for stream in self._streams.values():
            stream.finish()
        self._streams, self._repairs = {}, {}
        if self._servicing is not None:
            self._servicing.cancel()
            self._servicing = None

    # --- people and tracks

    async def _update(self, info: ParticipantInfo) -> None:
        from livekit.protocol.models import ParticipantInfo as Info

        now = time.time_ns()
        if info.state == Info.State.DISCONNECTED:
            self._gone(info.sid, now)
            return
        kind = Info.Kind.Name(info.kind).lower()
        person = Participant(info.sid, info.identity, info.name, kind, info.joined_at_ms)
        if info.sid not in self._people:
            self._people[info.sid] = person
            self._listener.arrived(person, now)
        present = {one.sid for one in info.tracks}
        for track in [one for one in self._tracks.values() if one.identity == info.identity]:
            if track.sid not in present:
                self._withdraw(track.sid, now)
        fresh = [sid for one in info.tracks if (sid := self._see(info.identity, one, now))]
        if fresh:
            await self._subscribe(fresh)

    def _see(self, identity: str, info: TrackInfo, now: int) -> str | None:
        """The sid, when its media is wanted and not asked for yet."""
        track = track_of(identity, info)
        known = self._tracks.get(track.sid)
        self._tracks[track.sid] = track
        if known is not None and known != track:
            self._listener.changed(track, now)
        if track.sid in self._wanted or not track.kind:
            return None
        if not self._listener.published(track, now):
            return None
        self._wanted.add(track.sid)
        return track.sid

    async def _subscribe(self, sids: list[str]) -> None:
        from livekit.protocol.models import VideoQuality
        from livekit.protocol.rtc import SignalRequest, UpdateSubscription, UpdateTrackSettings

        assert self._signal is not None
        await self._signal.send(
            SignalRequest(subscription=UpdateSubscription(track_sids=sids, subscribe=True))
        )
        await self._signal.send(
            SignalRequest(track_setting=UpdateTrackSettings(track_sids=sids, quality=VideoQuality.HIGH))
        )

    def _gone(self, sid: str, now: int) -> None:
        person = self._people.pop(sid, None)
        if person is None:
            return
        for track in [one for one in self._tracks.values() if one.identity == person.identity]:
            self._withdraw(track.sid, now)
        self._listener.left(person, now)

    def _withdraw(self, sid: str, now: int) -> None:
        track = self._tracks.pop(sid)
        self._wanted.discard(sid)
        for stream in self._streams.values():
            if stream.track_id == sid:
                stream.finish()
        self._listener.unpublished(track, now)

    def _speakers(self, message: Any) -> None:
        for one in message.speakers_changed.speakers:
            person = self._people.get(one.sid)
            if person is None:
                continue
            if one.active:
                self._levels[person.identity] = round(one.level, 3)
            else:
                self._levels.pop(person.identity, None)
        self._listener.speaking(dict(self._levels), time.time_ns())

    # --- packets

    def _media(self, data: bytes) -> None:
        packet = parse_packet(data)
        if packet is None:
            return
        stream = self._streams.get(packet.ssrc)
        if stream is None:
            repair = self._repairs.get(packet.ssrc)
            if repair is None or packet.payload_type not in repair[1]:
                return
            packet = unwrap_rtx(packet, repair[0], repair[1][packet.payload_type])
            stream = self._streams.get(repair[0])
            if stream is None or packet is None:
                return
        stream.packet(packet, time.monotonic())
        if stream.waiting and self._servicing is None:
            self._schedule()

    def _control(self, data: bytes) -> None:
        for report in sender_reports(data):
            stream = self._streams.get(report.ssrc)
            if stream is not None:
                stream.sender_report(report, time.monotonic())

    def _schedule(self) -> None:
        if self._servicing is None:
            self._servicing = asyncio.get_running_loop().call_later(_SERVICE_EVERY_SEC, self._service)

    def _service(self) -> None:
        self._servicing = None
        self._ask_for_missing()
        if any(stream.waiting for stream in self._streams.values()):
            self._schedule()

    def _ask_for_missing(self) -> None:
        now = time.monotonic()
        for stream in list(self._streams.values()):
            missing, key = stream.service(now)
            if missing and self._link is not None:
                self._link.send(nack(self._ours, stream.ssrc, missing))
            if key and self._link is not None:
                self._link.send(picture_loss(self._ours, stream.ssrc))

    async def _report(self) -> None:
        assert self._link is not None
        rounds = 0
        while True:
            await asyncio.sleep(_REPORT_EVERY_SEC / 4)
            self._ask_for_missing()
            rounds += 1
            if rounds % 4:
                continue
            now = time.monotonic()
            receptions = [one for stream in self._streams.values() if (one := stream.reception(now))]
            for packet in receiver_report(self._ours, receptions):
                self._link.send(packet)


def _leave(leave: LeaveRequest) -> None:
    """Raise what it means."""
    from livekit.protocol.models import DisconnectReason
    from livekit.protocol.rtc import LeaveRequest as Leave

    if leave.action != Leave.Action.DISCONNECT:
        raise SignalLost
    if leave.reason == DisconnectReason.DUPLICATE_IDENTITY:
        raise RoomLeft("evicted")
    if leave.reason in (
        DisconnectReason.ROOM_DELETED,
        DisconnectReason.ROOM_CLOSED,
        DisconnectReason.PARTICIPANT_REMOVED,
    ):
        raise RoomLeft("source_closed")
    raise SignalLost
