"""`livekit.Egress` on our own engine: every method as LiveKit answers it (livekit-surface.md 1.5, contract LK)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from server.auth.livekit_tokens import LiveKitPairs
from server.context import CallContext
from server.domain.egress import Destination, Egress, EgressSecrets, EgressStatus, Surface
from server.domain.egress_sources import RoomSource
from server.domain.room_names import RoomNames
from server.egress import stream_urls
from server.egress.control import EgressControl
from server.egress.echo import echo_of
from server.egress.egress_info import egress_info
from server.egress.outputs import destinations
from server.egress.requests import Accepted, RequestReader
from server.egress.validation import check_layout, has_field, wrong
from server.errors import Code, ServiceError, failed_precondition
from server.ids import ProjectId
from server.ports.rooms import RoomListing

_RUNNING = (EgressStatus.STARTING, EgressStatus.ACTIVE, EgressStatus.ENDING)
_STEERED = (EgressStatus.STARTING, EgressStatus.ACTIVE)
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class EgressParts:
    """What stands behind `livekit.Egress`; `reader` is looked up for each call, since a browser may be installed."""

    control: EgressControl
    reader: Callable[[], RequestReader]
    rooms: RoomListing
    names: RoomNames
    pairs: LiveKitPairs


class LiveKitEgress:
    """The ten methods. Egresses of other APIs are shown and steered here too, but only those of the caller's project."""

    def __init__(self, parts: EgressParts) -> None:
        self._control = parts.control
        self._parts = parts

    async def call(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """All Start methods: the room must be open, then the request must make sense, then it is STARTING."""
        return _info(method, await self.start(ctx.project_id, request, default_key=ctx.caller.key_id or ""))

    async def start(
        self,
        project_id: ProjectId,
        request: Any,
        *,
        default_key: str = "",
        egress_id: str | None = None,
        surface: Surface = Surface.LIVEKIT,
    ) -> Egress:
        """Any Start request of LiveKit's. `default_key` signs webhooks that name no key (LK-139)."""
        room = self._livekit_room(project_id, request)
        try:
            accepted = self._parts.reader().read(request, room)
            if has_field(request, "room_name") and not room:
                raise wrong("room_name")
            secrets = await self._signed(project_id, accepted.secrets, default_key)
        except ServiceError as error:
            await self._check_room(room)
            raise error from None
        return await self._start(project_id, request, accepted, secrets, egress_id, surface)

    async def check(self, project_id: ProjectId, request: Any, *, default_key: str) -> None:
        """Raise ServiceError for what `start` would refuse, but for what only the room can tell."""
        accepted = self._parts.reader().read(request, self._livekit_room(project_id, request))
        await self._signed(project_id, accepted.secrets, default_key)

    async def _start(
        self,
        project_id: ProjectId,
        request: Any,
        accepted: Accepted,
        secrets: EgressSecrets,
        egress_id: str | None,
        surface: Surface,
    ) -> Egress:
        try:
            return await self._control.start(
                project_id,
                room_name=accepted.room_name,
                surface=surface,
                type=accepted.type,
                layout=accepted.layout,
                quality=accepted.quality,
                file_type=accepted.file_type,
                plan=accepted.plan,
                request=echo_of(request),
                orders=accepted.orders,
                secrets=secrets,
                egress_id=egress_id,
                needs_room=bool(accepted.plan.livekit_room),
            )
        except ServiceError as error:
            if error.field == "s3Config":
                raise wrong("output") from None
            raise

    async def list_egress(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """One by its id, which must exist; else those that have not ended, of a room or of all (B-40)."""
        if request.egress_id:
            _check_id(request)
            found = [await self._control.get(ctx.project_id, request.egress_id)]
        elif "\0" in request.room_name:
            found = []
        else:
            found = await self._running(ctx.project_id, request.room_name or None)
        return _reply(method, {"items": [egress_info(one) for one in found]})

    async def stop_egress(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """At once: what is recorded is put in place afterwards."""
        _check_id(request)
        return _info(method, await self._control.stop(ctx.project_id, request.egress_id))

    async def update_layout(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """Any name, like LiveKit; one that is no layout shows the grid (LK-48 to LK-50)."""
        _check_id(request)
        if not request.layout:
            raise wrong("layout")
        check_layout(request.layout)
        egress = await self._control.get(ctx.project_id, request.egress_id)
        if not isinstance(egress.plan.source, RoomSource):
            raise failed_precondition("only the layout of a room composite egress can be updated")
        if egress.status not in _STEERED:
            raise failed_precondition(f"egress with status {egress.status.value} cannot be updated")
        return _info(
            method, await self._control.update_layout(ctx.project_id, request.egress_id, request.layout)
        )

    async def update_stream(self, method: MethodDescriptor, request: Any, ctx: CallContext) -> Any:
        """Adds, then removes; what can be done is done, and the rest is one error of a line for each address."""
        _check_id(request)
        project_id, egress_id = ctx.project_id, request.egress_id
        egress = await self._control.get(project_id, egress_id)
        protocol = egress.plan.outputs.streams
        if protocol not in ("", stream_urls.WEBSOCKET) and egress.status in _STEERED:
            problems: list[ServiceError] = []
            add = self._added(request, egress, problems)
            remove = _removed(request, egress, problems)
            try:
                egress = await self._control.update_streams(project_id, egress_id, add=add, remove=remove)
            except ServiceError as error:
                problems.append(error)
            if problems:
                raise ServiceError(problems[0].code, "\n".join(one.message for one in problems))
            return _info(method, egress)
        return _info(method, await self._control.update_streams(project_id, egress_id))

    def _added(self, request: Any, egress: Egress, problems: list[ServiceError]) -> list[Destination]:
        known = {one.id for one in egress.results.streams}
        given = [(one.id, one.url) for one in request.add_destinations]
        given += [("", url) for url in request.add_output_urls]
        check = self._parts.reader().check_stream
        found: list[Destination] = []
        for name, url in given:
            try:
                if name in known:
                    raise wrong("destinations")
                found += destinations([(name, url)], egress.plan.outputs.streams, check)
            except ServiceError as error:
                problems.append(error)
            known |= {name} - {""}
        return found

    async def _running(self, project_id: ProjectId, room_name: str | None) -> list[Egress]:
        found: list[Egress] = []
        page = 1
        while True:
            answer = await self._control.list(
                project_id, room_name=room_name, statuses=_RUNNING, page=page, size=_AT_ONCE
            )
            found += answer.items
            if not answer.items or len(found) >= answer.total:
                return found
            page += 1

    async def _signed(self, project_id: ProjectId, secrets: EgressSecrets, default_key: str) -> EgressSecrets:
        """Webhooks with what signs them, so that whoever sends them need not look for keys."""
        webhooks = []
        for webhook in secrets.webhooks:
            pair = await self._parts.pairs.find(webhook.signing_key or default_key)
            if pair is None or pair.project_id != project_id:
                raise wrong("webhook signing_key")
            webhooks.append(
                replace(webhook, signing_key=webhook.signing_key or default_key, secret=pair.secret)
            )
        return replace(secrets, webhooks=tuple(webhooks))

    def _livekit_room(self, project_id: ProjectId, request: Any) -> str:
        """LiveKit's name of the room, "" where none is asked for; one that nobody can have does not exist."""
        name = request.room_name if has_field(request, "room_name") else ""
        if not name:
            return ""
        if "\0" in name:
            raise _no_room()
        try:
            return self._parts.names.to_livekit(project_id, name)
        except ServiceError:
            raise _no_room() from None

    async def _check_room(self, livekit_room: str) -> None:
        """LiveKit looks for the room before it looks at anything else."""
        if livekit_room and not await self._parts.rooms.rooms([livekit_room]):
            raise _no_room()


def _no_room() -> ServiceError:
    return ServiceError(Code.NOT_FOUND, "requested room does not exist")


def _check_id(request: Any) -> None:
    if not request.egress_id:
        raise wrong("egress_id")
    if "\0" in request.egress_id:
        # PostgreSQL knows no such text.
        raise ServiceError(Code.NOT_FOUND, "egress does not exist")


def _removed(request: Any, egress: Egress, problems: list[ServiceError]) -> list[str]:
    """Canonical addresses, or ids of destinations."""
    ids = {one.id for one in egress.results.streams}
    found = []
    for given in request.remove_output_urls:
        try:
            found.append(given if given in ids else stream_urls.canonical(given, egress.plan.outputs.streams))
        except ServiceError:
            problems.append(ServiceError(Code.NOT_FOUND, f"stream {stream_urls.in_error(given)} not found"))
    return found


def _info(method: MethodDescriptor, egress: Egress) -> Any:
    return _reply(method, egress_info(egress))


def _reply(method: MethodDescriptor, tree: dict[str, Any]) -> Any:
    return json_format.ParseDict(tree, GetMessageClass(method.output_type)())
