"""Which kind of link a destination's URL asks for."""

from __future__ import annotations

import ssl

from adapters.recorder.encoders import Encoders
from adapters.recorder.outputs.flv import headers
from adapters.recorder.outputs.link import Link
from adapters.recorder.outputs.rtmp import RtmpLink
from adapters.recorder.outputs.srt import SrtLink
from adapters.recorder.outputs.streams import Dial
from adapters.recorder.outputs.tcp import Resolve
from adapters.recorder.outputs.websocket import WebsocketLink
from server.domain.egress import Destination


def dialer(kind: str, encoders: Encoders, *, resolve: Resolve, tls: ssl.SSLContext | None) -> Dial:
    """`kind` as `RecorderPlan.streams`."""
    trusted = tls or trusted_context()
    first = headers(encoders) if kind == "rtmp" else None

    def dial(destination: Destination) -> Link:
        if first is not None:
            return RtmpLink(destination.url, first, resolve=resolve, tls=trusted)
        if kind == "srt":
            return SrtLink(destination.url, encoders, resolve=resolve)
        if kind == "websocket":
            return WebsocketLink(destination.url, resolve=resolve, tls=trusted)
        raise ValueError("no streams are planned")

    return dial


def trusted_context() -> ssl.SSLContext:
    """Verifies against certifi's authorities."""
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
