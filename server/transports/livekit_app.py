"""All HTTP routes of LiveKit's that are served here, as one ASGI application beside our own."""

from __future__ import annotations

from server.auth.livekit_tokens import LiveKitTokens
from server.rpc.dispatch import Dispatcher
from server.rpc.registry import Registry
from server.transports.exchange import BodyLimits, Exchange, Receive, Scope, Send
from server.transports.livekit_http import path_of
from server.transports.livekit_twirp import PREFIX, LiveKitTwirp


class LiveKitApp:
    """`livekit.*` over Twirp."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        tokens: LiveKitTokens,
        limits: BodyLimits | None = None,
    ) -> None:
        self._twirp = LiveKitTwirp(registry, dispatcher, tokens)
        self._limits = limits or BodyLimits()

    def takes(self, scope: Scope) -> bool:
        """Whether the route is LiveKit's."""
        return scope["type"] == "http" and path_of(scope).startswith(PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._twirp.serve(Exchange(scope, receive, send, self._limits))
