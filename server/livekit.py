"""The LiveKit side of the composition root: which LiveKit stands behind this server, and what is built on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adapters.http.netguard import NetGuard, Purpose
from adapters.livekit.configured import AbsentLiveKit, ConfiguredLiveKit
from adapters.livekit.embedded import EmbeddedLiveKit
from adapters.livekit.gateway import TwirpGateway
from adapters.livekit.options import EmbeddedOptions
from adapters.livekit.ports import PortPlan
from adapters.livekit.rooms import LiveKitRooms
from adapters.livekit.server_config import Binding
from adapters.livekit.signal import AiohttpSignal
from adapters.web.programs import missing_programs
from server.clock import Clock
from server.domain.room_names import RoomNames
from server.egress.control import EgressControl
from server.egress.requests import Capabilities, RequestReader, UrlChecks
from server.livekit_api import LiveKitApi, livekit_api
from server.ports.rooms import RoomGateway, RoomListing
from server.ports.secret_box import SecretBox
from server.ports.unit_of_work import Database
from server.rooms.intake import LiveKitWebhooks
from server.rooms.journal import RoomJournal
from server.rooms.reconcile import Reconciler
from server.services.livekit_egress import EgressParts, LiveKitEgress
from server.services.rooms import Rooms
from server.settings import Settings
from server.webhooks.recorder import OutboxRecorder

LiveKitBehind = ConfiguredLiveKit | EmbeddedLiveKit | AbsentLiveKit
WEBHOOK_PATH = "/livekit/webhook"


def livekit_behind(
    settings: Settings, box: SecretBox, *, http_url: str | None, follow_only: bool = False
) -> LiveKitBehind:
    """Not started yet. `http_url` is where LiveKit, on this machine, reaches our HTTP; None: it tells us no events.

    `follow_only` is for a process without HTTP: it uses the embedded LiveKit of the one beside it, and starts none.

    Raise ValueError naming the setting that cannot be used.
    """
    if settings.livekit_url is not None:
        assert settings.livekit_api_key is not None
        assert settings.livekit_api_secret is not None
        return ConfiguredLiveKit(
            settings.livekit_url,
            settings.livekit_api_key,
            settings.livekit_api_secret.get_secret_value(),
            public_url=settings.livekit_public_url,
        )
    if not settings.livekit_embedded:
        return AbsentLiveKit()
    own_key, own_secret = settings.bootstrap_livekit_api_key, settings.bootstrap_livekit_api_secret
    return EmbeddedLiveKit(
        EmbeddedOptions(
            data_dir=settings.data_dir,
            http_host=settings.http_host,
            ports=PortPlan.of(
                signal=settings.livekit_port,
                tcp=settings.livekit_tcp_port,
                udp=settings.livekit_udp_ports,
                fixed=settings.model_fields_set,
                loopback=Binding.of(settings.http_host).is_loopback,
            ),
            webhook_url=http_url + WEBHOOK_PATH if http_url else None,
            binary=settings.livekit_server,
            public_url=settings.livekit_public_url,
            follow_only=follow_only,
            further_keys={own_key: own_secret.get_secret_value()} if own_key and own_secret else {},
        ),
        box,
    )


@dataclass(frozen=True, slots=True)
class LiveKitSide:
    """`reconciler` is None where there is no LiveKit to compare with; `api` is LiveKit's own, in front of it.

    `listing` is what is open in it, `control` what starts egresses of that.
    """

    source: LiveKitBehind
    listing: RoomListing
    control: EgressControl
    rooms: Rooms
    journal: RoomJournal
    intake: LiveKitWebhooks
    reconciler: Reconciler | None
    api: LiveKitApi


@asynccontextmanager
async def open_livekit(
    source: LiveKitBehind,
    database: Database,
    recorder: OutboxRecorder,
    names: RoomNames,
    clock: Clock,
    *,
    control_of: Callable[[RoomGateway], EgressControl],
    reader: Callable[[], RequestReader],
) -> AsyncIterator[LiveKitSide]:
    """Starts the LiveKit if it is ours to start, without waiting for it, and closes everything in reverse."""
    async with AsyncExitStack() as stack:
        await source.start()
        stack.push_async_callback(source.aclose)
        gateway = TwirpGateway(source, clock)
        stack.push_async_callback(gateway.close)
        signal = AiohttpSignal(source)
        stack.push_async_callback(signal.close)
        listing = LiveKitRooms(gateway)
        journal = RoomJournal(database, recorder, names, clock)
        intake = LiveKitWebhooks(source, journal, clock)
        stack.push_async_callback(intake.aclose)
        absent = isinstance(source, AbsentLiveKit)
        control = control_of(listing)
        yield LiveKitSide(
            source=source,
            listing=listing,
            control=control,
            rooms=Rooms(listing, source, names, journal, database, clock),
            journal=journal,
            intake=intake,
            reconciler=None if absent else Reconciler(database, listing, journal, clock),
            api=livekit_api(
                database,
                source,
                gateway,
                signal,
                names,
                clock,
                listing=listing,
                egress=lambda pairs: LiveKitEgress(EgressParts(control, reader, listing, names, pairs)),
            ),
        )


def request_reader(guard: NetGuard) -> RequestReader:
    """Of LiveKit's requests, with what this machine has installed by now."""

    def check(purpose: Purpose, field: str) -> Callable[[str], None]:
        def checked(url: str) -> None:
            guard.check_url(url, purpose, field=field)

        return checked

    missing = missing_programs()
    browser = f"this server lacks {', '.join(missing)}" if missing else ""
    checks = UrlChecks(
        stream=check(Purpose.STREAM, "stream url"),
        webhook=check(Purpose.WEBHOOK, "webhook url"),
        page=check(Purpose.INPUT, "url"),
    )
    return RequestReader(Capabilities(browser=browser), checks)
