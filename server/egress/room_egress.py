"""What a room asks to have recorded of itself: `CreateRoom.egress`, or `roomConfig.egress` of a token that opens a room.

`room` is one composition, started with the room. `participant` is one egress for each participant who publishes, `tracks`
one for each track; those are remembered with the room and started as people come (livekit-surface.md 5.5).
"""

from __future__ import annotations

import posixpath
from typing import Any, Protocol

from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from server.clock import Clock
from server.domain.egress import Egress, RoomEgress
from server.errors import ServiceError
from server.ids import ProjectId, derived_egress_id
from server.ports.unit_of_work import Database

_STORAGES = ("s3", "gcp", "azure", "aliOSS")


class EgressStarter(Protocol):
    """LiveKit's Start requests (`LiveKitEgress`)."""

    async def check(self, project_id: ProjectId, request: Any, *, default_key: str) -> None:
        """Raise ServiceError for what `start` would refuse whatever room it is."""
        ...

    async def start(
        self, project_id: ProjectId, request: Any, *, default_key: str, egress_id: str | None
    ) -> Egress:
        """With an id that exists already, the egress of before."""
        ...


class RoomEgresses:
    """Takes a `livekit.RoomEgress`: checks it before there is a room, and begins it when the room is there."""

    def __init__(self, database: Database, starter: EgressStarter, clock: Clock) -> None:
        self._database = database
        self._starter = starter
        self._clock = clock

    async def check(self, project_id: ProjectId, wanted: Any, *, default_key: str) -> None:
        """Raise ServiceError in the words of the Start call that would be made."""
        requests = []
        if wanted.HasField("room"):
            requests.append(room_request(wanted, "room"))
        if wanted.HasField("participant"):
            requests.append(participant_request(wanted, "room", "identity"))
        if wanted.HasField("tracks"):
            requests.append(track_request(wanted, "room", "track"))
        for request in requests:
            await self._starter.check(project_id, request, default_key=default_key)

    async def begin(
        self, project_id: ProjectId, sid: str, name: str, wanted: Any, *, default_key: str
    ) -> None:
        """For a room that was opened just now; `name` is the project's. Raise ServiceError if it cannot be started."""
        if wanted.HasField("participant") or wanted.HasField("tracks"):
            kept = RoomEgress(sid, project_id, name, wanted.SerializeToString(), self._clock.now())
            async with self._database.begin() as tx:
                await tx.room_egress.add(kept)
                await tx.commit()
        if not wanted.HasField("room"):
            return
        # Two calls that both open the room ask for the same egress.
        egress_id = derived_egress_id("room", sid)
        request = room_request(wanted, name)
        try:
            await self._starter.start(project_id, request, default_key=default_key, egress_id=egress_id)
        except ServiceError:
            async with self._database.begin() as tx:
                await tx.room_egress.remove(sid)
                await tx.commit()
            raise


def read_room_egress(data: bytes) -> Any:
    """A `livekit.RoomEgress` from its bytes."""
    return livekit_class("RoomEgress").FromString(data)


def room_request(wanted: Any, room_name: str) -> Any:
    """Whatever room it named, it is this one."""
    request = livekit_class("RoomCompositeEgressRequest")()
    request.CopyFrom(wanted.room)
    request.room_name = room_name
    return request


def participant_request(wanted: Any, room_name: str, identity: str) -> Any:
    """Camera and microphone of one participant, as `AutoParticipantEgress` has it."""
    auto = wanted.participant
    request = livekit_class("ParticipantEgressRequest")(room_name=room_name, identity=identity)
    kind = auto.WhichOneof("options")
    if kind == "preset":
        request.preset = auto.preset
    elif kind == "advanced":
        request.advanced.CopyFrom(auto.advanced)
    request.file_outputs.MergeFrom(auto.file_outputs)
    request.segment_outputs.MergeFrom(auto.segment_outputs)
    return request


def track_request(wanted: Any, room_name: str, track_id: str) -> Any:
    """One track into a file of its own; LiveKit forgets two fields of `AutoTrackEgress` here, we do not."""
    auto = wanted.tracks
    request = livekit_class("TrackEgressRequest")(room_name=room_name, track_id=track_id)
    request.file.filepath = track_path(auto.filepath)
    request.file.disable_manifest = auto.disable_manifest
    storage = auto.WhichOneof("output")
    if storage in _STORAGES:
        getattr(request.file, storage).CopyFrom(getattr(auto, storage))
    return request


def track_path(path: str) -> str:
    """A path for many tracks: with the track's id in it, before the first dot, unless it is there or names a folder."""
    if not path or path.endswith("/") or "{track_id}" in path:
        return path
    folder, name = posixpath.split(path)
    stem, dot, rest = name.partition(".")
    return posixpath.join(folder, f"{stem}-{{track_id}}{dot}{rest}")


def livekit_class(name: str) -> Any:
    """The class of one of LiveKit's messages."""
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"livekit.{name}"))
