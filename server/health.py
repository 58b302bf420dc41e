"""What a process tells of itself over HTTP: whether it is ready, and its metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from server.app import Backend
from server.errors import ServiceError
from server.observability.livekit_health import LiveKitHealth
from server.observability.metrics import exposition
from server.observability.state_metrics import StateMetrics
from server.transports.health import Readiness

_PROBE_TIMEOUT_SEC = 2.0


class Health:
    """Of one process; `ready` is its own to set. The other parts are asked when somebody wants to know."""

    def __init__(self, backend: Backend, role: str) -> None:
        self.ready = False
        self._backend = backend
        self._role = role
        self._livekit = LiveKitHealth(backend.livekit.source)
        self._registry = backend.metrics.registry
        self._state = StateMetrics(
            backend.database, backend.clock, backend.settings.data_dir, self._livekit.problem
        )
        self._registry.register(self._state)

    async def readiness(self) -> Readiness:
        """Ready while the database answers: without LiveKit everything but rooms works."""
        database, livekit = await asyncio.gather(self._database_answers(), self._livekit.problem())
        details = {
            "role": self._role,
            "database": "ok" if database else "unavailable",
            "livekit": f"unavailable: {livekit}" if livekit else "ok",
        }
        return Readiness(self.ready and database, details)

    async def scrape(self) -> tuple[bytes, str]:
        """The text of `/metrics` and its content type."""
        await self._state.refresh()
        return exposition(self._registry)

    async def _database_answers(self) -> bool:
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_PROBE_TIMEOUT_SEC), self._backend.database.read() as tx:
                await tx.projects.get(self._backend.started.project_id)
                return True
        return False
