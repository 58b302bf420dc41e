"""Which addresses a recorder's streams may connect to, and when a recording that is nothing but streams is over."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address

from adapters.http.netguard import NetGuard, Purpose
from adapters.recorder.outputs.tcp import Resolve
from server.domain.egress import Destination
from server.ports.recorder import RecorderPlan


def stream_resolver(*, allow_private: bool) -> Resolve:
    """Looks hosts up anew for each connection; addresses that the guard forbids are left out."""
    guard = NetGuard(allow_private=allow_private)

    def resolve(host: str, port: int) -> Sequence[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(one[4][0]) for one in found)
        allowed = [one for one in addresses if guard.permits(ip_address(one), Purpose.STREAM)]
        if not allowed:
            raise OSError("the destination is at a private or reserved address")
        return allowed

    return resolve


class Watched:
    """What is wanted of streams, as far as the recording's end depends on it."""

    def __init__(self, plan: RecorderPlan) -> None:
        self._alone = not (plan.container or plan.segment_sec or plan.images)
        self._had_any = False
        self._wanted = 0
        self.want(plan.destinations)

    def want(self, destinations: Sequence[Destination]) -> None:
        self._had_any = self._had_any or bool(destinations)
        self._wanted = len(destinations)

    def over(self, running: int) -> str:
        """`streams_ended` or `streams_failed` once nobody watches any more; `running` destinations have not failed."""
        if not (self._alone and self._had_any):
            return ""
        if not self._wanted:
            return "streams_ended"
        return "" if running else "streams_failed"
