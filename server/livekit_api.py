"""Puts together what serves LiveKit's own API in front of the LiveKit behind: for the composition root and for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.auth.livekit import LiveKitAuthoriser
from server.auth.livekit_join import JoinTokens
from server.auth.livekit_tokens import LiveKitPairs, LiveKitTokens
from server.clock import Clock
from server.domain.room_names import RoomNames
from server.egress.room_egress import RoomEgresses
from server.ports.livekit import LiveKitGateway, LiveKitSource, SignalClient
from server.ports.rooms import RoomListing
from server.ports.unit_of_work import Database
from server.rpc.dispatch import Dispatcher
from server.rpc.livekit_services import livekit_services
from server.rpc.registry import Registry, ServiceBinding
from server.services.join_egress import JoinEgress
from server.services.livekit_egress import LiveKitEgress
from server.services.livekit_forward import LiveKitForward, PendingIngress
from server.services.livekit_rooms import LiveKitRoomService
from server.transports.livekit_app import LiveKitApp
from server.transports.livekit_signal import LiveKitSignal
from server.transports.livekit_twirp import LiveKitTwirp


@dataclass(frozen=True, slots=True)
class LiveKitApi:
    """`services` go into the registry, `app` in front of it; `pairs.forget` must hear of every revoked pair."""

    pairs: LiveKitPairs
    tokens: LiveKitTokens
    services: Sequence[ServiceBinding]
    egress: LiveKitEgress
    signal: LiveKitSignal

    def app(self, registry: Registry, dispatcher: Dispatcher) -> LiveKitApp:
        """The HTTP side over the registry that `services` are in."""
        return LiveKitApp(LiveKitTwirp(registry, dispatcher, self.tokens), self.signal)


def livekit_api(
    database: Database,
    livekit: LiveKitSource,
    gateway: LiveKitGateway,
    signal: SignalClient,
    names: RoomNames,
    clock: Clock,
    *,
    listing: RoomListing,
    egress: Callable[[LiveKitPairs], LiveKitEgress],
) -> LiveKitApi:
    """Works without a LiveKit too: then every call of a project with rights is `unavailable`, saying why."""
    pairs = LiveKitPairs(database, livekit, names.bootstrap_project_id)
    tokens = LiveKitTokens(pairs, clock)
    egresses = egress(pairs)
    room_egresses = RoomEgresses(database, egresses, clock)
    services = livekit_services(
        rooms=LiveKitRoomService(gateway, names, room_egresses),
        egress_engine=egresses,
        ingress_engine=PendingIngress(),
        forward=LiveKitForward(gateway, names),
        authoriser=LiveKitAuthoriser(tokens),
    )
    joins = JoinTokens(pairs, names)
    join_egress = JoinEgress(room_egresses, joins, listing, names)
    return LiveKitApi(
        pairs, tokens, services, egresses, LiveKitSignal(livekit, signal, tokens, joins, join_egress)
    )
