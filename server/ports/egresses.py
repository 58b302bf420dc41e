"""Where egresses, recordings and what starts them of itself are kept: repositories of a unit of work."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from server.domain.egress import Egress, EgressPage, EgressSecrets, EgressStatus, Orders, RoomEgress
from server.domain.recording import AutoEgress, Recording, RecordingPage
from server.ids import ProjectId


class EgressRepository(Protocol):
    """Egresses. Their owner writes their state, the API their orders: separate columns, so neither undoes the other."""

    async def add(self, egress: Egress, orders: Orders, secrets: EgressSecrets) -> None:
        """Raise ServiceError already_exists if the id is taken."""
        ...

    async def get(self, project_id: ProjectId | None, egress_id: str, *, lock: bool = False) -> Egress | None:
        """None also if it is another project's or deleted; `project_id=None` is for workers and sees deleted ones too.

        `lock` keeps others from changing the row until the transaction ends: for whoever means to `save` it.
        """
        ...

    async def save(self, egress: Egress) -> None:
        """Replaces the state: everything but orders, secrets and plan."""
        ...

    async def orders(self, egress_id: str) -> Orders: ...

    async def give(self, egress_id: str, orders: Orders) -> None:
        """Replaces the orders and wakes their owner when the transaction commits; lock the egress first."""
        ...

    async def secrets(self, egress_id: str) -> EgressSecrets: ...

    async def list(
        self,
        project_id: ProjectId,
        *,
        room_name: str | None = None,
        statuses: Collection[EgressStatus] | None = None,
        shown_status: str | None = None,
        page: int = 1,
        size: int = 20,
    ) -> EgressPage:
        """Newest first, without deleted ones; `shown_status` is what `shown_status()` says of them."""
        ...

    async def running(self) -> tuple[Egress, ...]:
        """Of all projects: STARTING, ACTIVE and ENDING."""
        ...


class RecordingRepository(Protocol):
    """Recordings: they outlive the record of their egress."""

    async def add(self, recording: Recording) -> None: ...
    async def get(self, project_id: ProjectId | None, recording_id: str) -> Recording | None: ...
    async def of_egress(self, project_id: ProjectId, egress_id: str) -> Recording | None: ...
    async def save(self, recording: Recording) -> None: ...

    async def composing(self) -> tuple[Recording, ...]:
        """Of all projects: compositions that have not ended."""
        ...

    async def list(
        self,
        project_id: ProjectId,
        *,
        room_name: str | None = None,
        status: str | None = None,
        page: int = 1,
        size: int = 20,
    ) -> RecordingPage:
        """Newest first."""
        ...


class AutoEgressRepository(Protocol):
    async def get(self, project_id: ProjectId) -> AutoEgress | None: ...
    async def save(self, rules: AutoEgress) -> None: ...

    async def enabled(self) -> tuple[AutoEgress, ...]:
        """Of all projects."""
        ...

    async def begin(self, room_sid: str, project_id: ProjectId, now: datetime) -> bool:
        """Notes that this session of a room had its automatic egress; False if it was noted already (AE-13)."""
        ...


class RoomEgressRepository(Protocol):
    """What sessions of rooms ask to have recorded of themselves; forgotten with the session."""

    async def add(self, kept: RoomEgress) -> None:
        """The first for a session counts."""
        ...

    async def remove(self, room_sid: str) -> None: ...

    async def open(self) -> tuple[RoomEgress, ...]:
        """Of all projects, of sessions that have not ended."""
        ...
