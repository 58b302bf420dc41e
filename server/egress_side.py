"""The egress side of the composition root: what BaxCloud's own calls about egresses are answered by."""

from __future__ import annotations

from dataclasses import dataclass

from server.clock import Clock
from server.domain.room_names import RoomNames
from server.egress.auto import AutoEgressWatch
from server.egress.compositions import Compositions, UrlCheck
from server.egress.control import EgressControl
from server.egress.storage import EgressStorages
from server.ports.unit_of_work import Database
from server.services.auto_egress import AutoEgressRules
from server.services.egress import EgressService
from server.services.egresses import Egresses
from server.services.recordings import Recordings
from server.services.room_recording import RoomRecordings


@dataclass(frozen=True, slots=True)
class EgressSide:
    """`watch` starts what projects' rules ask for; it runs where the background work is done."""

    service: EgressService
    watch: AutoEgressWatch


def egress_side(
    database: Database,
    control: EgressControl,
    storages: EgressStorages,
    names: RoomNames,
    clock: Clock,
    *,
    check_url: UrlCheck,
) -> EgressSide:
    """`check_url` is the address guard for streams."""
    compositions = Compositions(control, names, check_url)
    watch = AutoEgressWatch(database, compositions, clock)
    egresses = Egresses(database, control, compositions, clock)
    return EgressSide(
        EgressService(
            egresses,
            Recordings(database, egresses, storages, clock),
            AutoEgressRules(database, compositions, clock, watch.stir),
            RoomRecordings(database, control, compositions, clock),
        ),
        watch,
    )
