"""Rooms and participants as `baxcloud.v1` shows them."""

from __future__ import annotations

from generated.baxcloud.v1 import room_pb2 as pb
from server.domain.room import Participant, Room, Track
from server.services.messages import to_timestamp


def room_to_message(room: Room, *, name: str, enable_recording: bool, people: int) -> pb.Room:
    """`name` is the project's own name of the room, `people` the number of those in it."""
    return pb.Room(
        name=name,
        sid=room.sid,
        max_participants=room.max_participants,
        empty_timeout=room.empty_timeout,
        metadata=room.metadata,
        enable_recording=enable_recording,
        num_participants=people,
        active_recording=room.active_recording,
        created_at=to_timestamp(room.created_at),
    )


def participant_to_message(participant: Participant) -> pb.Participant:
    return pb.Participant(
        identity=participant.identity,
        name=participant.name,
        state=participant.state.value,
        sid=participant.sid,
        metadata=participant.metadata,
        joined_at=to_timestamp(participant.joined_at),
        is_publisher=participant.is_publisher,
        tracks=map(_track_to_message, participant.tracks),
    )


def _track_to_message(track: Track) -> pb.Track:
    return pb.Track(sid=track.sid, type=track.type, source=track.source, muted=track.muted)
