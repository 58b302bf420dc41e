"""The rooms of the LiveKit behind this server, under the names that LiveKit knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from server.domain.room import Participant, Room


class RoomListing(Protocol):
    """What is open and who is there. Raise ServiceError `unavailable` when LiveKit cannot be reached."""

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        """Those of `names` that are open; all when none is given."""
        ...

    async def participants(self, name: str) -> tuple[Participant, ...]:
        """All of them, recorders included; none for a room that is not open."""
        ...


class RoomGateway(RoomListing, Protocol):
    """Asks LiveKit. Raise ServiceError: LiveKit's own code, `unavailable` when it cannot be reached."""

    async def create(
        self, name: str, *, max_participants: int = 0, empty_timeout: int = 0, metadata: str = ""
    ) -> Room:
        """The open room of that name as it is, else a new one; 0 means LiveKit's default.

        `empty_timeout`, seconds, holds before anyone came and after everyone left (RM-05).
        """
        ...

    async def delete(self, name: str) -> None:
        """Raise ServiceError not_found."""
        ...

    async def set_room_metadata(self, name: str, metadata: str) -> Room:
        """Raise ServiceError not_found."""
        ...

    async def participant(self, name: str, identity: str) -> Participant:
        """Raise ServiceError not_found."""
        ...

    async def remove_participant(self, name: str, identity: str) -> None:
        """Raise ServiceError not_found."""
        ...

    async def set_participant_metadata(self, name: str, identity: str, metadata: str) -> Participant:
        """LiveKit takes an empty text for "as it is". Raise ServiceError not_found."""
        ...
