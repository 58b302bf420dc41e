"""What each command makes of an egress and its orders; pure, so that they can be applied under any lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from server.domain.egress import Destination, Egress, EgressStatus, Orders, StreamResult, StreamStatus
from server.domain.egress_sources import RoomSource
from server.egress.outputs import MAX_DESTINATIONS
from server.egress.stream_urls import redacted, shown
from server.egress.validation import wrong
from server.errors import Code, ServiceError, failed_precondition

STOPPED_BY_CALL = "StopEgress API"
_STEERED = (EgressStatus.STARTING, EgressStatus.ACTIVE)
_ENDED_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Change:
    """What an egress and its orders become. `problems` is what could not be done, in words for the caller."""

    egress: Egress
    orders: Orders
    problems: tuple[str, ...] = ()


Command = Callable[[Egress, Orders], Change]
"""Raises ServiceError for what cannot be done at all."""


def ending(reason: str) -> Command:
    """ACTIVE becomes ENDING at once; the first reason stays."""

    def end(egress: Egress, orders: Orders) -> Change:
        if egress.status.is_final:
            raise failed_precondition(f"egress with status {egress.status.value} cannot be stopped")
        if orders.end_reason:
            return Change(egress, orders)
        if egress.status is EgressStatus.ACTIVE:
            egress = replace(egress, status=EgressStatus.ENDING, details=f"End reason: {reason}")
        return Change(egress, orders.then(end_reason=reason))

    return end


def removing(at: datetime) -> Command:
    """Ends it first, if need be."""

    def remove(egress: Egress, orders: Orders) -> Change:
        if not egress.status.is_final:
            ended = ending(STOPPED_BY_CALL)(egress, orders)
            egress, orders = ended.egress, ended.orders
        return Change(replace(egress, deleted_at=at), orders)

    return remove


def laying_out(layout: str) -> Command:
    def lay_out(egress: Egress, orders: Orders) -> Change:
        if not isinstance(egress.plan.source, RoomSource) or egress.status not in _STEERED:
            raise ServiceError(Code.NOT_FOUND, "participant does not exist")
        return Change(replace(egress, layout=layout), orders.then(layout=layout))

    return lay_out


def pausing(mode: str) -> Command:
    """`cut`, `card`, or "" to go on."""

    def pause(egress: Egress, orders: Orders) -> Change:
        if egress.status not in _STEERED or orders.end_reason:
            verb = "paused" if mode else "resumed"
            raise failed_precondition(f"egress with status {egress.status.value} cannot be {verb}")
        if orders.paused == mode:
            return Change(egress, orders)
        return Change(replace(egress, paused=mode), orders.then(paused=mode))

    return pause


def restreaming(add: Sequence[Destination], remove: Sequence[str], at: int = 0) -> Command:
    """Adds before it removes; `remove` names destinations by canonical URL or id; `at` is now, ns since 1970.

    One that is removed before it was connected is FINISHED at once: its owner may never have heard of it.
    """

    def change(egress: Egress, orders: Orders) -> Change:
        if egress.plan.outputs.streams in ("", "websocket"):
            raise ServiceError(Code.INVALID_ARGUMENT, "UpdateStream called on non-streaming egress")
        if egress.status not in _STEERED:
            raise failed_precondition(f"egress with status {egress.status.value} cannot be updated")
        over = {one.id for one in egress.results.streams if one.status is not StreamStatus.ACTIVE}
        wanted = [one for one in orders.destinations if one.id not in over]
        added = _added(wanted, add)
        problems = []
        for name in remove:
            kept = [one for one in wanted if name not in (one.url, one.id)]
            if len(kept) == len(wanted):
                problems.append(f"stream {redacted(name)} not found")
            wanted = kept
        if len(wanted) > max(MAX_DESTINATIONS, len(orders.destinations)):
            raise wrong(f"stream url (at most {MAX_DESTINATIONS})")
        if tuple(wanted) == orders.destinations:
            return Change(egress, orders, tuple(problems))
        ids = {one.id for one in wanted}
        streams = [_let_go(one, ids, at) for one in (*egress.results.streams, *added)]
        results = replace(egress.results, streams=_newest(streams))
        then = orders.then(destinations=tuple(wanted))
        return Change(replace(egress, results=results), then, tuple(problems))

    return change


def waiting(destination: Destination) -> StreamResult:
    """A destination that is not connected yet."""
    return StreamResult(destination.id, redacted(destination.url), shown(destination.url))


def _added(wanted: list[Destination], add: Sequence[Destination]) -> list[StreamResult]:
    """Puts those into `wanted` that are not there yet."""
    added = []
    for one in add:
        if one.url not in {known.url for known in wanted}:
            wanted.append(one)
            added.append(waiting(one))
    return added


def _let_go(stream: StreamResult, wanted: Collection[str], at: int) -> StreamResult:
    if stream.id in wanted or stream.started_at or stream.status is not StreamStatus.ACTIVE:
        return stream
    return replace(stream, status=StreamStatus.FINISHED, ended_at=at)


def _newest(streams: Sequence[StreamResult]) -> tuple[StreamResult, ...]:
    """Without the oldest of very many that have ended."""
    ended = [one.id for one in streams if one.status is not StreamStatus.ACTIVE]
    dropped = set(ended[:-_ENDED_SHOWN])
    return tuple(one for one in streams if one.id not in dropped)
