"""Which kind of link a destination's URL asks for."""

from __future__ import annotations

import ssl

from adapters.recorder.encoders import Encoders
from adapters.recorder.outputs.flv import headers
from adapters.recorder.outputs.link import Link
from adapters.recorder.outputs.rtmp import Resolve, RtmpLink
from adapters.recorder.outputs.streams import Dial
from server.domain.egress import Destination


def dialer(kind: str, encoders: Encoders, *, resolve: Resolve, tls: ssl.SSLContext | None) -> Dial:
    """`kind` as `RecorderPlan.streams`."""
    if kind != "rtmp":
        return _nothing
    first = headers(encoders)
    trusted = tls or trusted_context()

    def rtmp(destination: Destination) -> Link:
        return RtmpLink(destination.url, first, resolve=resolve, tls=trusted)

    return rtmp


def trusted_context() -> ssl.SSLContext:
    """Verifies against certifi's authorities."""
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _nothing(_: Destination) -> Link:
    raise ValueError("no streams are planned")
