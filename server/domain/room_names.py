"""Room names as projects see them and as the one LiveKit behind knows them (design sections 10 and 13)."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import invalid
from server.ids import ProjectId

# Starts every name that is not the bootstrap project's own, so that no project can name another's room.
MARK = "bax:"
# LiveKit's limit on a room's name.
MAX_BYTES = 256


@dataclass(frozen=True, slots=True)
class OwnedRoom:
    """A room of LiveKit's with its owner: `name` as the project knows it."""

    project_id: ProjectId
    name: str


@dataclass(frozen=True, slots=True)
class RoomNames:
    """The bootstrap project uses room names as they are; others get a prefix that no API ever shows."""

    bootstrap_project_id: ProjectId

    def prefix(self, project_id: ProjectId) -> str:
        """What LiveKit's names of the project's rooms begin with; empty for the bootstrap project."""
        return "" if project_id == self.bootstrap_project_id else f"{MARK}{project_id}:"

    def to_livekit(self, project_id: ProjectId, name: str, *, field: str = "roomName") -> str:
        """Raise ServiceError invalid_argument for names that are reserved or would become too long."""
        if name.startswith(MARK):
            raise invalid(field, f"must not start with {MARK!r}")
        full = self.prefix(project_id) + name
        if len(full.encode()) > MAX_BYTES:
            room = MAX_BYTES - (len(full.encode()) - len(name.encode()))
            raise invalid(field, f"must not be longer than {room} bytes")
        return full

    def owner(self, livekit_name: str) -> OwnedRoom:
        """Whose room it is."""
        if not livekit_name.startswith(MARK):
            return OwnedRoom(self.bootstrap_project_id, livekit_name)
        project_id, _, name = livekit_name.removeprefix(MARK).partition(":")
        return OwnedRoom(ProjectId(project_id), name)
