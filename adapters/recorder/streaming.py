"""Which addresses a recorder's streams may connect to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address

from adapters.http.netguard import NetGuard, Purpose
from adapters.recorder.outputs.tcp import Resolve


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
