"""Refuses at once what no worker could take, instead of letting it wait in STARTING."""

from __future__ import annotations

from server.domain.egress import EGRESS_KIND, EgressPlan, EgressStatus
from server.domain.egress_load import cores
from server.errors import Code, ServiceError, unavailable
from server.ports.unit_of_work import UnitOfWork

# One that is ENDING lets go of its cores within seconds, but may wait for hours for a storage that is away.
_CAPTURED = (EgressStatus.STARTING, EgressStatus.ACTIVE)


class Capacity:
    """Compares what runs with what the living workers offer, in processor cores.

    `within_sec`: a worker not heard from for so long offers nothing. Two starts at the same moment may both find the
    last room: then one waits until a worker has room for it.
    """

    def __init__(self, within_sec: float) -> None:
        self._within_sec = within_sec

    async def admit(self, tx: UnitOfWork, plan: EgressPlan) -> None:
        """Raise ServiceError unavailable without any worker, resource_exhausted when all are full."""
        offered = await tx.workers.offered(EGRESS_KIND, within_sec=self._within_sec)
        if offered is None:
            raise unavailable("no worker that records and streams is running")
        taken = sum(
            cores(egress.plan) for egress in await tx.egresses.running() if egress.status in _CAPTURED
        )
        needed = cores(plan)
        # A machine too small for it still does one at a time.
        if taken and taken + needed > offered:
            raise ServiceError(
                Code.RESOURCE_EXHAUSTED,
                f"all workers are busy: {taken:.2f} of {offered:.2f} cores are taken and this needs {needed:.2f}",
            )
