"""All HTTP routes of LiveKit's that are served here, as one ASGI application beside our own."""

from __future__ import annotations

from server.transports.exchange import BodyLimits, Exchange, Receive, Scope, Send
from server.transports.livekit_http import path_of
from server.transports.livekit_signal import PATHS, SOCKETS, LiveKitSignal
from server.transports.livekit_twirp import PREFIX, LiveKitTwirp


class LiveKitApp:
    """`livekit.*` over Twirp, and signalling."""

    def __init__(self, twirp: LiveKitTwirp, signal: LiveKitSignal, limits: BodyLimits | None = None) -> None:
        self._twirp = twirp
        self._signal = signal
        self._limits = limits or BodyLimits()

    def takes(self, scope: Scope) -> bool:
        """Whether the route is LiveKit's."""
        if scope["type"] == "websocket":
            return path_of(scope) in SOCKETS
        path = path_of(scope)
        return path.startswith(PREFIX) or path in PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._signal.connect(scope, receive, send)
            return
        part = self._twirp if path_of(scope).startswith(PREFIX) else self._signal
        await part.serve(Exchange(scope, receive, send, self._limits))
