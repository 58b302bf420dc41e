"""The rules by which rooms are recorded or streamed of themselves (AE)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from generated.baxcloud.v1 import egress_pb2 as pb
from server.clock import Clock
from server.context import CallContext
from server.domain.recording import AutoEgress
from server.egress.auto import composition_of
from server.egress.compositions import Compositions
from server.egress.stream_urls import shown
from server.errors import invalid
from server.ports.unit_of_work import Database
from server.services.egress_messages import rules_to_message

_PLAIN = (
    "enabled",
    "mode",
    "layout",
    "quality",
    "min_participants",
    "delay_seconds",
    "room_name_pattern",
)


class AutoEgressRules:
    """The part of `baxcloud.v1.EgressService` about a project's rules. `changed` hears of every change."""

    def __init__(
        self,
        database: Database,
        compositions: Compositions,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._compositions = compositions
        self._clock = clock
        self._changed = changed

    async def get_auto_egress(
        self, request: pb.GetAutoEgressRequest, ctx: CallContext
    ) -> pb.AutoEgressConfig:
        async with self._database.read() as tx:
            rules = await tx.auto_egress.get(ctx.project_id)
        return rules_to_message(rules or AutoEgress(ctx.project_id))

    async def update_auto_egress(
        self, request: pb.UpdateAutoEgressRequest, ctx: CallContext
    ) -> pb.AutoEgressConfig:
        """What is left out stays (B-77)."""
        async with self._database.begin() as tx:
            before = await tx.auto_egress.get(ctx.project_id) or AutoEgress(ctx.project_id)
            rules = replace(_merged(before, request), updated_at=self._clock.now())
            self._compositions.check(composition_of(rules, rules.room_name_pattern))
            await tx.auto_egress.save(rules)
            await tx.commit()
        self._changed()
        return rules_to_message(rules)


def _merged(rules: AutoEgress, request: pb.UpdateAutoEgressRequest) -> AutoEgress:
    given = {name: getattr(request, name) for name in _PLAIN if request.HasField(name)}
    if request.file.HasField("file_type"):
        given["file_type"] = request.file.file_type.upper()
    if request.HasField("stream"):
        given["urls"] = tuple(_known(url, index, rules) for index, url in enumerate(request.stream.urls))
    return replace(rules, **given)


def _known(url: str, index: int, rules: AutoEgress) -> str:
    """Rules that were read may be sent back: what is shown of a destination stands for it."""
    if not url.endswith("***"):
        return url
    meant = [one for one in rules.urls if shown(one) == url]
    if len(meant) == 1:
        return meant[0]
    # Two destinations of one service look alike; by their place they are told apart.
    if index < len(rules.urls) and rules.urls[index] in meant:
        return rules.urls[index]
    raise invalid(f"stream.urls[{index}]", "must hold the stream key, not ***")
